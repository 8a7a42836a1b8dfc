//! `secrets ca`: the internal certificate authority. Its key is a secret like others; only its
//! certificate, which is public, is ever printed.

use super::{Outcome, Session, access, many, one, parse_name, warn_if_locked_out};
use crate::cli::secrets::CaArgs;
use crate::command::{complain, print};
use crate::diagnostic::Diagnostic;
use crate::project::vault::{authority_certificate, new_authority};

pub(super) fn run(session: &Session, arguments: &CaArgs) -> Outcome {
    let name = parse_name(&arguments.name)?;
    let mut store = session.sound_store()?;
    let keyring = session.keyring(&store);
    let fail = |text: String| vec![Diagnostic::error(text)];
    if arguments.print {
        let pem = store.reveal(&name, access(&keyring)).map_err(many)?;
        print(&authority_certificate(&pem).map_err(|reason| fail(format!("secret `{name}` {reason}")))?);
        return Ok(());
    }
    keyring.identities().map_err(one)?;
    if store.place(&name).is_some() && !arguments.replace {
        let text = format!("there is a secret `{name}` already");
        return Err(vec![Diagnostic::error(text).hint(
            "`--replace` puts a new authority in its place, and every certificate is then issued anew; `--print` prints its certificate",
        )]);
    }
    let pem = new_authority(arguments.common_name.as_deref().unwrap_or(name.as_str()), arguments.days).map_err(fail)?;
    let place = store.set(&name, &pem, None, &keyring).map_err(many)?;
    complain(&format!("stored the certificate authority `{name}` in `{}`; its certificate:", store.dir().join(place).display()));
    print(&authority_certificate(&pem).map_err(fail)?);
    warn_if_locked_out(&store, &keyring);
    Ok(())
}
