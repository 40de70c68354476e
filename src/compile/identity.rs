//! Where does our identity in the mesh come from? From `[identity]` of the settings, with Istio's places as defaults.

use std::path::PathBuf;
use std::time::Duration;

use crate::resource::codes::{self, Code};
use crate::resource::settings::{IdentityKind, IdentitySettings, Settings};
use crate::snapshot::identity::{IdentitySource, Istiod, LocalIdentity, Workload, WorkloadApi};

const ISTIOD: &str = "istiod.istio-system.svc:15012";
/// Where Istio mounts the ConfigMap `istio-ca-root-cert`.
const ROOT: &str = "/var/run/secrets/istio/root-cert.pem";
/// Where Istio mounts the token for `istio-ca`.
const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
/// Where `[tls] local_ca` has it.
const LOCAL_CA: &str = "local-ca";
/// Istio's SECRET_TTL.
const TTL: Duration = Duration::from_secs(24 * 3600);

/// Who is asked; `None`: files, which are read as all other certificates are.
pub(super) fn source(settings: &Settings) -> Option<IdentitySource> {
    let identity = &settings.identity;
    match identity.source? {
        IdentityKind::Files => None,
        IdentityKind::WorkloadApi => Some(IdentitySource::WorkloadApi(WorkloadApi {
            socket: identity.socket.clone(),
            spiffe_id: identity.spiffe_id.clone(),
        })),
        IdentityKind::Istiod => Some(IdentitySource::Istiod(Box::new(Istiod {
            address: identity.address.clone().unwrap_or_else(|| ISTIOD.to_owned()),
            server_name: identity.server_name.clone(),
            root: path(identity, &identity.root, ROOT),
            token: path(identity, &identity.token, TOKEN),
            first: (!identity.certificate.is_empty() && !identity.key.is_empty())
                .then(|| (identity.base.join(&identity.certificate), identity.base.join(&identity.key))),
            workload: workload(settings),
            cluster: settings.gateway.cluster.clone(),
            signer: identity.signer.clone(),
            ttl: identity.ttl.unwrap_or(TTL),
        }))),
        IdentityKind::LocalCa => Some(IdentitySource::LocalCa(LocalIdentity {
            folder: settings.tls.local_ca.clone().unwrap_or_else(|| identity.base.join(LOCAL_CA)),
            workload: workload(settings),
            ttl: identity.ttl.unwrap_or(TTL),
        })),
    }
}

/// Why there is no identity.
pub(super) struct Missing {
    /// To be told in place of the usual code: it is yet to come.
    pub code: Option<&'static Code>,
    /// Behind "our own certificate in the mesh is needed, and".
    pub words: String,
}

/// Why there is no identity, where one is needed.
pub(super) fn missing(settings: &Settings) -> Missing {
    match source(settings) {
        Some(source) => {
            let words = format!("`{}` of [identity] has given us none yet", source.name());
            Missing { code: Some(&codes::IDENTITY_AWAITED), words }
        }
        None if settings.identity.is_wanted() => {
            Missing { code: None, words: "the files of [identity] could not be read".to_owned() }
        }
        None => Missing { code: None, words: "[identity] of the settings names none".to_owned() },
    }
}

fn path(identity: &IdentitySettings, written: &str, default: &str) -> PathBuf {
    identity.base.join(if written.is_empty() { default } else { written })
}

fn workload(settings: &Settings) -> Workload {
    let (identity, gateway) = (&settings.identity, &settings.gateway);
    Workload {
        trust_domain: identity.trust_domain.as_deref().unwrap_or_else(|| settings.trust_domain()).to_owned(),
        namespace: identity.namespace.clone().unwrap_or_else(|| gateway.namespace.clone()),
        service_account: identity.service_account.clone().unwrap_or_else(|| gateway.workload.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn istio_says_what_the_settings_leave_open() {
        let mut settings = Settings::default();
        assert_eq!(source(&settings), None);
        settings.identity.source = Some(IdentityKind::Istiod);
        settings.identity.base = "/etc/limani".into();
        settings.identity.token = "token".into();
        let Some(IdentitySource::Istiod(istiod)) = source(&settings) else { panic!("istiod was chosen") };
        assert_eq!((istiod.address.as_str(), istiod.ttl), (ISTIOD, TTL));
        assert_eq!((istiod.root.as_path(), istiod.token.as_path()), (Path::new(ROOT), Path::new("/etc/limani/token")));
        assert_eq!(istiod.workload.service_account, "istio-ingressgateway");
    }
}
