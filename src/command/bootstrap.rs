//! `bootstrap`: the first login to a new host. Shows the host key and pins it once the user
//! agrees, then makes a sudo user with the user's key.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::cli::BootstrapArgs;
use crate::command::enlist::{Enlisted, Entry, enlist};
use crate::command::{complain, print};
use crate::diagnostic::{Exit, Failure, FailureClass, printable};
use crate::shell::Script;
use crate::transport::{Connector, Frame, HostKeyPolicy, Privilege, Target};

/// What cannot go on.
type Stop = (String, Exit);

/// Runs the first login.
pub(super) fn run(arguments: &BootstrapArgs) -> Exit {
    match bootstrap(arguments) {
        Ok(()) => Exit::Fine,
        Err((message, exit)) => {
            complain(&format!("error: {message}"));
            exit
        }
    }
}

fn stop(message: impl Into<String>) -> Stop {
    (message.into(), Exit::Usage)
}

fn failed(failure: &Failure) -> Stop {
    let causes: String = failure.causes.iter().map(|cause| format!("\n  caused by: {cause}")).collect();
    let hint = failure.hint.as_ref().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
    (format!("{}{causes}{hint}", failure.message), failure.class.exit())
}

fn bootstrap(arguments: &BootstrapArgs) -> Result<(), Stop> {
    let (user, address, port) = split(&arguments.host)?;
    // Of a private key that was named, the public half beside it.
    let beside =
        || arguments.private_key.as_ref().map(|path| PathBuf::from(format!("{}.pub", path.display()))).filter(|path| path.is_file());
    let public = arguments.public_key.clone().or_else(beside);
    let key = public_key(public.as_deref())?;
    let known_hosts = arguments.inventory.with_file_name("known_hosts");
    if let Some(parent) = known_hosts.parent() {
        std::fs::create_dir_all(parent).map_err(|error| stop(format!("{}: {error}", parent.display())))?;
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| (error.to_string(), Exit::Bug))?;
    let learnt = tempfile::Builder::new().prefix("known_hosts").tempfile().map_err(|error| stop(error.to_string()))?;
    let mut target = Target {
        host: arguments.name.clone().unwrap_or_else(|| address.clone()),
        local: false,
        address: address.clone(),
        port: Some(port),
        user: Some(user.clone()),
        identity_files: arguments.private_key.iter().cloned().collect(),
        password: None,
        proxy_jump: None,
        proxy_command: None,
        known_hosts: vec![learnt.path().to_path_buf()],
        host_keys: HostKeyPolicy::AcceptNew,
        privilege: Privilege::AsLogin,
        connect_timeout: Duration::from_secs(15),
        use_ssh_config: false,
        legacy: false,
    };
    let connector = Connector::default();
    // Nothing is given away before the key is agreed to: this login offers no credentials.
    let probe = Target { identity_files: Vec::new(), user: Some("nobody".to_owned()), ..target.clone() };
    match runtime.block_on(connector.connect(&probe)) {
        Err(failure) if failure.class != FailureClass::Auth => return Err(failed(&failure)),
        _ => {}
    }
    agree(learnt.path(), &known_hosts, arguments.fingerprint.as_deref())?;
    target.known_hosts = vec![known_hosts.clone()];
    target.host_keys = HostKeyPolicy::Strict;
    if arguments.private_key.is_none() {
        target.password = Some(password(&format!("password of {user}@{address}: "))?);
    }
    if user != "root" {
        target.privilege = Privilege::Sudo { password: target.password.clone() };
    }
    runtime.block_on(make_user(&connector, &target, &arguments.create_user, &key)).map_err(|failure| failed(&failure))?;
    let mut identity_files = target.identity_files.clone();
    let own = private_key(public.as_deref());
    identity_files.extend(own.clone());
    let check = Target {
        user: Some(arguments.create_user.clone()),
        identity_files,
        password: None,
        privilege: Privilege::Sudo { password: None },
        ..target.clone()
    };
    runtime.block_on(connector.connect(&check)).map(drop).map_err(|failure| failed(&failure))?;
    let name = arguments.name.clone().unwrap_or_else(|| address.clone());
    let entry = Entry { name: &name, address: &address, port, user: &arguments.create_user, key: own.as_deref() };
    add_to_inventory(&arguments.inventory, &entry)?;
    print(&format!(
        "{name}: `{}` logs in with the key and becomes root; the host key is pinned in {}\ntry it: soc-provision facts {name} -i {}\n",
        arguments.create_user,
        known_hosts.display(),
        arguments.inventory.display()
    ));
    Ok(())
}

fn split(host: &str) -> Result<(String, String, u16), Stop> {
    let (user, rest) = host.rsplit_once('@').unwrap_or(("root", host));
    let (address, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.trim_start_matches(':')),
        None => match rest.split_once(':') {
            Some((address, port)) if !port.contains(':') => (address, port),
            _ => (rest, ""),
        },
    };
    let port = if port.is_empty() { 22 } else { port.parse().map_err(|_| stop(format!("`{port}` is not a port")))? };
    if address.is_empty() {
        return Err(stop("the host's address is missing: write [user@]host[:port]"));
    }
    Ok((user.to_owned(), address.to_owned(), port))
}

/// The private half of a public key that was named, if it lies beside it.
fn private_key(public: Option<&Path>) -> Option<PathBuf> {
    let path = public.filter(|path| path.extension().is_some_and(|end| end == "pub"))?.with_extension("");
    let path = std::path::absolute(path).ok()?;
    path.is_file().then_some(path)
}

fn public_key(given: Option<&Path>) -> Result<String, Stop> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let candidates: Vec<PathBuf> = match given {
        Some(path) => vec![path.to_path_buf()],
        None => ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"].iter().map(|name| home.join(".ssh").join(name)).collect(),
    };
    let found = candidates.iter().find_map(|path| std::fs::read_to_string(path).ok());
    let text =
        found.ok_or_else(|| stop("no public key found\nhint: name one with `--public-key`, or make one with `ssh-keygen -t ed25519`"))?;
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    if line.starts_with("ssh-") || line.starts_with("ecdsa-") || line.starts_with("sk-") {
        Ok(line)
    } else {
        Err(stop("that is not a public key: it starts neither `ssh-` nor `ecdsa-`"))
    }
}

/// Shows the host's keys and pins them if the user, or the fingerprint given, agrees.
fn agree(learnt: &Path, known_hosts: &Path, fingerprint: Option<&str>) -> Result<(), Stop> {
    let text = std::fs::read_to_string(learnt).map_err(|error| stop(error.to_string()))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err((String::from("the host showed no key"), Exit::Unreachable));
    }
    let prints: Vec<String> = lines.iter().filter_map(|line| crate::transport::fingerprint_of_line(line)).collect();
    match fingerprint {
        Some(wanted) if prints.iter().any(|print| print == wanted) => {}
        Some(wanted) => {
            return Err((format!("the host's key is {}, not {wanted}; nothing was sent to it", prints.join(", ")), Exit::Unreachable));
        }
        None => {
            complain(&format!("the host's key is {}", prints.join(", ")));
            if !std::io::stdin().is_terminal() {
                return Err(stop("whether that is right cannot be asked here\nhint: give the key with `--fingerprint SHA256:...`"));
            }
            let _ = write!(std::io::stderr(), "compare it with the host's console. Is it right? [y/N] ");
            let mut answer = String::new();
            let _ = std::io::stdin().lock().read_line(&mut answer);
            if !matches!(answer.trim(), "y" | "Y" | "yes") {
                return Err(stop("the key was not accepted; nothing was sent to the host"));
            }
        }
    }
    let present = std::fs::read_to_string(known_hosts).unwrap_or_default();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(known_hosts).map_err(|error| stop(error.to_string()))?;
    for line in lines.iter().filter(|line| !present.lines().any(|old| old == **line)) {
        writeln!(file, "{line}").map_err(|error| stop(error.to_string()))?;
    }
    Ok(())
}

fn password(prompt: &str) -> Result<Zeroizing<String>, Stop> {
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| stop(error.to_string()));
    }
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line).map_err(|error| stop(error.to_string()))?;
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()))
}

async fn make_user(connector: &Connector, target: &Target, user: &str, key: &str) -> Result<(), Failure> {
    let session = connector.connect(target).await?;
    let script = Script::sh(
        r#"set -e; u={}
command -v sudo >/dev/null || { echo 'sudo is not installed on the host' >&2; exit 127; }
id -u "$u" >/dev/null 2>&1 || useradd -m -s /bin/sh "$u"
h=$(getent passwd "$u" | cut -d: -f6)
install -d -m 0700 -o "$u" -g "$(id -gn "$u")" "$h/.ssh"
grep -qxF {} "$h/.ssh/authorized_keys" 2>/dev/null || printf '%s\n' {} >>"$h/.ssh/authorized_keys"
chown "$u:" "$h/.ssh/authorized_keys"; chmod 0600 "$h/.ssh/authorized_keys"
t=/etc/sudoers.d/.soc-provision.new; printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\n' "$u" >"$t"; chmod 0440 "$t"
visudo -cqf "$t" && mv -f "$t" "/etc/sudoers.d/soc-provision-$u"
"#,
        &[user, key, key],
    );
    let output = session.run(Frame::new(script)).await.map_err(|error| Failure::new(FailureClass::Tcp, error.to_string()))?;
    session.close().await;
    if output.status == 0 {
        return Ok(());
    }
    Err(Failure::new(FailureClass::StepFailed, format!("the user `{user}` could not be made"))
        .because(printable(&String::from_utf8_lossy(&output.stderr))))
}

/// Adds the host to the inventory; what cannot be done there is told.
fn add_to_inventory(path: &Path, entry: &Entry<'_>) -> Result<(), Stop> {
    let failed = |error: std::io::Error| stop(format!("{}: {error}", path.display()));
    if !path.exists() {
        return std::fs::write(path, format!("all:\n  hosts:\n{}", entry.lines(4))).map_err(failed);
    }
    match enlist(&std::fs::read_to_string(path).map_err(failed)?, entry) {
        Enlisted::Added(text) => std::fs::write(path, text).map_err(failed)?,
        Enlisted::Present => complain(&format!("{} has the host already; it was left as it is", path.display())),
        Enlisted::Unclear => complain(&format!("add the host to {}:\n{}", path.display(), entry.lines(4))),
    }
    Ok(())
}
