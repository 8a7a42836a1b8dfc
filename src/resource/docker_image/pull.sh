# pull IMAGE [OPTION...]: from its registry; says what would help if that fails.
pull() {
  image=$1; shift
  said=$(docker pull --quiet "$@" "$image" 2>&1 >/dev/null) && return 0
  printf '%s\n' "$said" >&2
  case $said in
    *unauthorized* | *'no basic auth'* | *denied*) echo "the registry wants a login, or another one: \`registry_login\` before this" >&2 ;;
    *'manifest unknown'* | *'not found'*) echo "the registry does not have it: look at images.lock, \`soc-provision images lock --pull\` asks the registry" >&2 ;;
  esac
  return 1
}
