//! In which folder is our identity in the mesh? The one that the settings name, else where Istio expects it.

use std::path::{Path, PathBuf};

use crate::resource::settings::IdentitySettings;

/// Where sidecars find theirs: what Istio's agent looks for, its older place, and the usual one of csi-driver-spiffe.
const PLACES: [&str; 3] = ["/var/run/secrets/workload-spiffe-credentials", "/etc/certs", "/var/run/secrets/spiffe.io"];

/// `None`: it is not in a folder, but in single files, or comes from elsewhere. Of Istio's places the first that exists.
pub(super) fn folder(identity: &IdentitySettings) -> Option<PathBuf> {
    let is_named = |file: &String| !file.is_empty();
    if !identity.is_from_files() {
        return None;
    }
    if is_named(&identity.folder) {
        return Some(identity.base.join(&identity.folder));
    }
    let single = [&identity.certificate, &identity.key, &identity.root];
    if identity.source.is_none() || single.into_iter().any(is_named) {
        return None;
    }
    let found = PLACES.into_iter().find(|place| Path::new(place).is_dir()).or(PLACES.first().copied());
    found.map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::settings::IdentityKind;

    #[test]
    fn the_folder_is_named_or_istios() {
        let mut identity = IdentitySettings { base: "/etc/limani".into(), ..IdentitySettings::default() };
        assert_eq!(folder(&identity), None);
        identity.source = Some(IdentityKind::Files);
        assert!(folder(&identity).is_some_and(|place| PLACES.iter().any(|one| place == Path::new(one))));
        identity.certificate = "a.pem".into();
        assert_eq!(folder(&identity), None, "files are named one by one");
        identity.folder = "us".into();
        assert_eq!(folder(&identity), Some("/etc/limani/us".into()));
        identity.source = Some(IdentityKind::Istiod);
        assert_eq!(folder(&identity), None);
    }
}
