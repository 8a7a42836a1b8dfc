//! What the project says of a stack's images (`images.lock`, the allow-list), put to the stack.

use std::collections::BTreeMap;

use crate::resource::argument::Presence;
use crate::resource::compose::service::Service;
use crate::resource::compose::stack::Locked;
use crate::resource::docker_image::{Image, ImageSource};
use crate::resource::{BuildContext, BuildError};

/// The locked images of a stack's services, and remarks on those that are not locked.
///
/// # Errors
/// Images that the project does not allow, all of them.
pub(super) fn policy(services: &[Service], context: &BuildContext<'_>) -> Result<(BTreeMap<String, Locked>, Vec<String>), BuildError> {
    let (mut locked, mut notes, mut problems) = (BTreeMap::new(), Vec::new(), Vec::new());
    for service in services {
        let rule = context.sources.image(&service.image);
        if let Some(refused) = rule.refused {
            problems.push(format!("image `{}` of service `{}` {refused}", service.image, service.name));
        }
        match rule.locked {
            Some(lock) => drop(locked.insert(service.image.clone(), lock)),
            None if rule.unlocked => notes.push(format!("image `{}` of service `{}` is not in images.lock", service.image, service.name)),
            None => {}
        }
    }
    match problems.len() {
        0 => Ok((locked, notes)),
        1 => Err(BuildError::field("compose", problems.remove(0)).hint("use another image, or change the list and lock it")),
        count => Err(BuildError::field("compose", format!("{count} problems:\n- {}", problems.join("\n- ")))),
    }
}

/// Locked images that nothing else brings are pulled by digest, not by tag.
///
/// # Errors
/// As [`Image::resolve`].
pub(super) fn by_digest(
    images: &mut Vec<Image>,
    locked: &BTreeMap<String, Locked>,
    never_pull: bool,
    context: &BuildContext<'_>,
) -> Result<(), BuildError> {
    for (reference, lock) in locked {
        let Some(digest) = lock.digest.clone().filter(|_| !never_pull && !reference.contains('@')) else { continue };
        let known = images.iter().position(|image| image.name == *reference);
        if known.is_some_and(|at| !images[at].is_pulled_by_tag()) {
            continue;
        }
        let source = ImageSource { digest: Some(digest), ..ImageSource::default() };
        let image = Image::resolve(reference.clone(), source, Presence::Present, context)?;
        match known {
            Some(at) => images[at] = image,
            None => images.push(image),
        }
    }
    Ok(())
}
