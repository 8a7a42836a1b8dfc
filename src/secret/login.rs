//! The line by which a Docker client logs in to a registry: `USER:PASSWORD` in base64, made of the
//! password's secret on the controller whenever a host needs it (docs of Docker's client,
//! "config.json": `auths.REGISTRY.auth`).

use base64::Engine as _;
use zeroize::Zeroizing;

use super::SecretName;

/// What a recipe of this kind begins with; the user's name follows.
const RECIPE: &str = "registry login:";

/// The name of a user's login with the password that a secret holds.
#[must_use]
pub fn name(password: &SecretName, user: &str) -> SecretName {
    password.made(&format!("login of {user}"), &format!("{RECIPE}{user}"))
}

/// Takes a recipe and gives the user's name, if the recipe is of a login.
#[must_use]
pub fn user(recipe: &str) -> Option<&str> {
    recipe.strip_prefix(RECIPE)
}

/// The login's line.
#[must_use]
pub fn line(user: &str, password: &str) -> Zeroizing<String> {
    let both = Zeroizing::new(format!("{user}:{password}"));
    Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(both.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_masks_the_password_masks_the_login() {
        let mut vault = super::super::Vault::default();
        vault.insert(SecretName::parse("p").unwrap(), Zeroizing::new("correct horse".to_owned()));
        for user in ["a", "ab", "abc"] {
            let shown = vault.masker().mask(&line(user, "correct horse"));
            assert!(shown.contains("***") && shown.len() < 8 + 2 * 4 + user.len() * 2, "{shown}");
        }
    }

    #[test]
    fn a_login_is_made_of_its_password_and_named_without_it() {
        let name = name(&SecretName::parse("reg/pull").unwrap(), "puller");
        assert_eq!(name.to_string(), "login of puller by reg/pull");
        let (stored, recipe) = name.origin();
        assert_eq!((stored.as_str(), recipe.and_then(user)), ("reg/pull", Some("puller")));
        // As `docker login` writes it.
        assert_eq!(line("puller", "s3cr\"et \\word").as_str(), "cHVsbGVyOnMzY3IiZXQgXHdvcmQ=");
    }
}
