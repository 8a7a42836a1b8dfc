//! Options of sshd: their names, and their values as lines of its configuration.

use serde_json::{Map, Value};

use crate::diagnostic::nearest;
use crate::resource::BuildError;

/// Options of OpenSSH 9.2 to 10.0 with Debian's (sshd_config(5)). `Match` and `Include` are left
/// out: they change what the rest of the file means.
const NAMES: &str = "\
AcceptEnv AddressFamily AllowAgentForwarding AllowGroups AllowStreamLocalForwarding AllowTcpForwarding AllowUsers
AuthenticationMethods AuthorizedKeysCommand AuthorizedKeysCommandUser AuthorizedKeysFile AuthorizedPrincipalsCommand
AuthorizedPrincipalsCommandUser AuthorizedPrincipalsFile Banner CASignatureAlgorithms ChannelTimeout ChrootDirectory Ciphers
ClientAliveCountMax ClientAliveInterval Compression DebianBanner DenyGroups DenyUsers DisableForwarding ExposeAuthInfo
FingerprintHash ForceCommand GatewayPorts GSSAPIAuthentication GSSAPICleanupCredentials GSSAPIKeyExchange
GSSAPIStrictAcceptorCheck GSSAPIStoreCredentialsOnRekey GSSAPIKexAlgorithms HostbasedAcceptedAlgorithms
HostbasedAuthentication HostbasedUsesNameFromPacketOnly HostCertificate HostKey HostKeyAgent HostKeyAlgorithms IgnoreRhosts
IgnoreUserKnownHosts IPQoS KbdInteractiveAuthentication KerberosAuthentication KerberosGetAFSToken KerberosOrLocalPasswd
KerberosTicketCleanup KexAlgorithms ListenAddress LoginGraceTime LogLevel LogVerbose MACs MaxAuthTries MaxSessions
MaxStartups ModuliFile PasswordAuthentication PermitEmptyPasswords PermitListen PermitOpen PermitRootLogin PermitTTY
PermitTunnel PermitUserEnvironment PermitUserRC PerSourceMaxStartups PerSourceNetBlockSize PerSourcePenalties
PerSourcePenaltyExemptList PidFile Port PrintLastLog PrintMotd PubkeyAcceptedAlgorithms PubkeyAuthOptions
PubkeyAuthentication RekeyLimit RequiredRSASize RevokedKeys SecurityKeyProvider SetEnv StreamLocalBindMask
StreamLocalBindUnlink StrictModes Subsystem SyslogFacility TCPKeepAlive TrustedUserCAKeys UnusedConnectionTimeout UseDNS
UsePAM VersionAddendum X11DisplayOffset X11Forwarding X11UseLocalhost XAuthLocation";

/// Options whose list is written as one line each.
const REPEATED: &[&str] = &["AcceptEnv", "HostCertificate", "HostKey", "ListenAddress", "Port", "SetEnv", "Subsystem"];
/// Options whose list is written with commas; all others with spaces.
const COMMAS: &[&str] = &[
    "CASignatureAlgorithms",
    "Ciphers",
    "GSSAPIKexAlgorithms",
    "HostbasedAcceptedAlgorithms",
    "HostKeyAlgorithms",
    "KexAlgorithms",
    "MACs",
    "PubkeyAcceptedAlgorithms",
];

/// The options as a file.
///
/// # Errors
/// An unknown option, a value that cannot be one, or one that would take away what health checks
/// need.
pub(super) fn render(options: &Map<String, Value>) -> Result<String, BuildError> {
    let mut out = String::from("# Written by soc-provision; sshd takes the first value that it reads of each option.\n");
    for (name, value) in options {
        let field = format!("options.{name}");
        let known = NAMES.split_whitespace().find(|known| known.eq_ignore_ascii_case(name)).ok_or_else(|| unknown(name, &field))?;
        let values =
            values(value).ok_or_else(|| BuildError::field(&field, "must be text on one line, a number, true, false, or a list of them"))?;
        keeps_checks(known, &values, &field)?;
        if REPEATED.contains(&known) {
            for value in values {
                out.push_str(&format!("{known} {value}\n"));
            }
        } else {
            let joined = values.join(if COMMAS.contains(&known) { "," } else { " " });
            out.push_str(&format!("{known} {joined}\n"));
        }
    }
    Ok(out)
}

/// The options' names as `sshd -T` prints them.
pub(super) fn keys(options: &Map<String, Value>) -> Vec<String> {
    options.keys().map(|name| name.to_ascii_lowercase()).collect()
}

fn unknown(name: &str, field: &str) -> BuildError {
    let message = format!("sshd has no option `{}`", name.escape_debug());
    match nearest(name, NAMES.split_whitespace()) {
        _ if name.eq_ignore_ascii_case("match") || name.eq_ignore_ascii_case("include") => {
            BuildError::field(field, format!("`{name}` changes what the rest of the file means, and has no place here"))
        }
        Some(near) => BuildError::field(field, message).hint(format!("did you mean `{near}`?")),
        None => BuildError::field(field, message),
    }
}

fn values(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::Bool(yes) => Some(if *yes { "yes" } else { "no" }.to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) if !text.trim().is_empty() && !text.contains(char::is_control) => Some(text.clone()),
        _ => None,
    };
    match value {
        Value::Array(list) if !list.is_empty() => list.iter().map(one).collect(),
        single => one(single).map(|value| vec![value]),
    }
}

/// Health checks of the controller look at the host's own ports through the connection, by local
/// forwarding.
fn keeps_checks(name: &str, values: &[String], field: &str) -> Result<(), BuildError> {
    let value = values.first().map(|value| value.to_ascii_lowercase()).unwrap_or_default();
    let cut = match name {
        "AllowTcpForwarding" => matches!(value.as_str(), "no" | "remote"),
        "DisableForwarding" => value == "yes",
        "PermitOpen" => value == "none",
        _ => false,
    };
    if cut {
        return Err(BuildError::field(
            field,
            format!("`{name} {value}` closes local forwarding, through which health checks reach the host's own ports"),
        )
        .hint("set `AllowTcpForwarding: local`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(options: Value) -> Result<String, BuildError> {
        render(options.as_object().unwrap())
    }

    #[test]
    fn values_become_lines() {
        let text = rendered(serde_json::json!({
            "permitrootlogin": "prohibit-password", "PasswordAuthentication": false, "MaxAuthTries": 3,
            "Ciphers": ["aes256-gcm@openssh.com", "aes128-gcm@openssh.com"], "AllowUsers": ["a", "b"], "Port": [22, 2222],
        }))
        .unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "PermitRootLogin prohibit-password",
                "PasswordAuthentication no",
                "MaxAuthTries 3",
                "Ciphers aes256-gcm@openssh.com,aes128-gcm@openssh.com",
                "AllowUsers a b",
                "Port 22",
                "Port 2222"
            ]
        );
    }

    #[test]
    fn mistakes_are_named() {
        let error = rendered(serde_json::json!({ "PermitRootLogn": "no" })).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `PermitRootLogin`?"));
        assert!(rendered(serde_json::json!({ "Match": "User x" })).unwrap_err().message.contains("changes what the rest"));
        assert!(rendered(serde_json::json!({ "Banner": "a\nPermitRootLogin yes" })).is_err());
        assert!(rendered(serde_json::json!({ "Banner": {} })).is_err());
        for cut in [serde_json::json!({ "AllowTcpForwarding": false }), serde_json::json!({ "DisableForwarding": "yes" })] {
            assert!(rendered(cut).unwrap_err().message.contains("closes local forwarding"));
        }
        assert!(rendered(serde_json::json!({ "AllowTcpForwarding": "local" })).is_ok());
    }
}
