//! Who does the SPIFFE Workload API say we are? SPIRE's agent and its like, over a Unix socket.
//! (SPIFFE_Workload_API.md, sections 4 and 5; SPIFFE_Workload_Endpoint.md.)

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};
use zeroize::Zeroizing;

use super::messages::{Svid, SvidRequest, SvidResponse};
use super::schedule;
use super::svid::{Identity, Parts, split};
use super::transport::{Client, Door, words};
use super::{Source, SourceError};
use crate::base::clock;
use crate::base::spiffe::is_trust_domain;
use crate::snapshot::identity::WorkloadApi;

const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// Without it an endpoint refuses: it shows that no browser or proxy was tricked into asking.
const HEADER: &str = "workload.spiffe.io";
/// Where the socket is said to be (SPIFFE_Workload_Endpoint.md section 4).
const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// Where Istio expects it.
const SOCKET: &str = "/var/run/secrets/workload-spiffe-uds/socket";

/// A stream that tells every change.
pub(super) struct FromWorkloadApi {
    plan: WorkloadApi,
    stream: Option<Streaming<SvidResponse>>,
    /// When the last one was opened.
    opened: Option<Instant>,
}

impl FromWorkloadApi {
    pub(super) fn new(plan: WorkloadApi) -> Self {
        FromWorkloadApi { plan, stream: None, opened: None }
    }

    async fn open(&self) -> Result<Streaming<SvidResponse>, SourceError> {
        let named = std::env::var(VARIABLE).ok();
        let socket = self.plan.socket.as_deref().or(named.as_deref()).unwrap_or(SOCKET);
        let failed = |status: &Status| {
            let said = words(status);
            match status.code() {
                Code::PermissionDenied => SourceError::Withdrawn(format!("{socket} gives us no identity: {said}")),
                _ => SourceError::Failed(format!("{socket}: {said}")),
            }
        };
        let door = door(socket).map_err(SourceError::Failed)?;
        let mut client = Client::connect(door).await.map_err(|status| failed(&status))?;
        let mut request = Request::new(SvidRequest {});
        request.metadata_mut().insert(HEADER, MetadataValue::from_static("true"));
        client.listen(request, FETCH).await.map_err(|status| failed(&status))
    }
}

#[async_trait]
impl Source for FromWorkloadApi {
    async fn next(&mut self) -> Result<Identity, SourceError> {
        // A stream that ended is opened again soon; one that cannot be opened is a failure.
        for was_open in [self.stream.is_some(), false] {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => {
                    sleep(schedule::until_reopened(self.opened.map(|opened| opened.elapsed()))).await;
                    self.opened = Some(Instant::now());
                    self.open().await?
                }
            };
            match stream.message().await {
                Ok(Some(state)) => {
                    self.stream = Some(stream);
                    return read(&self.plan, state, clock::now());
                }
                Err(status) if status.code() == Code::PermissionDenied => {
                    return Err(SourceError::Withdrawn(format!("we are given no identity: {}", words(&status))));
                }
                Ok(None) | Err(_) if was_open => {}
                Ok(None) => break,
                Err(status) => return Err(SourceError::Failed(words(&status))),
            }
        }
        Err(SourceError::Failed("the stream of identities ended without one".to_owned()))
    }
}

/// What a message makes of us. It is the full state: who is not in it any more is nobody.
fn read(plan: &WorkloadApi, state: SvidResponse, now: i64) -> Result<Identity, SourceError> {
    let chosen = state.svids.iter().find(|svid| plan.spiffe_id.as_ref().is_none_or(|wanted| svid.spiffe_id == *wanted));
    let Some(svid) = chosen else {
        let given: Vec<&str> = state.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
        return Err(SourceError::Withdrawn(match &plan.spiffe_id {
            Some(wanted) if !given.is_empty() => format!("we are {}, and not {wanted}", given.join(", ")),
            _ => "we are given no identity".to_owned(),
        }));
    };
    let failed =
        |reason: String| SourceError::Failed(format!("the identity {} cannot be used: {reason}", svid.spiffe_id));
    let parts = parts(svid, &state).map_err(failed)?;
    let identity = Identity::judge(&parts, now).map_err(failed)?;
    match identity.spiffe_id().as_str() == svid.spiffe_id {
        true => Ok(identity),
        false => Err(failed(format!("its certificate is that of {}", identity.spiffe_id()))),
    }
}

fn parts(svid: &Svid, state: &SvidResponse) -> Result<Parts, String> {
    let mut parts = Parts {
        chain: split(&svid.chain)?,
        key: Zeroizing::new(svid.key.clone()),
        revocations: state.crl.clone(),
        ..Parts::default()
    };
    for (id, bundle) in &state.federated_bundles {
        // The standard says SPIFFE IDs; some servers leave the scheme out.
        let domain = id.strip_prefix("spiffe://").unwrap_or(id).trim_end_matches('/');
        if !is_trust_domain(domain) {
            return Err(format!("`{id}` of the federated bundles is no trust domain"));
        }
        let roots = split(bundle)?;
        // Nobody of a domain without roots is believed; that is no reason to believe nobody at all.
        if !roots.is_empty() {
            parts.roots.insert(domain.to_owned(), roots);
        }
    }
    let own = svid.spiffe_id.strip_prefix("spiffe://").unwrap_or_default();
    let own = own.split_once('/').map_or(own, |(domain, _)| domain);
    parts.roots.insert(own.to_owned(), split(&svid.bundle)?);
    Ok(parts)
}

/// `unix:///run/agent.sock`, `unix:/run/agent.sock`, `tcp://127.0.0.1:8081` or a path.
fn door(socket: &str) -> Result<Door, String> {
    let path = |path: &str| match Path::new(path).is_absolute() {
        true => Ok(Door::Unix(PathBuf::from(path))),
        false => Err(format!("the socket `{socket}` has to be an absolute path, or begin with unix:// or tcp://")),
    };
    match socket.split_once(':') {
        Some(("unix", rest)) => path(rest.strip_prefix("//").unwrap_or(rest)),
        Some(("tcp", rest)) => Ok(Door::Tcp(rest.trim_start_matches('/').to_owned())),
        _ => path(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::super::svid::example::{US, parts};
    use super::*;

    fn svid() -> Svid {
        let parts = parts(&[US], |_| ());
        Svid {
            spiffe_id: US.to_owned(),
            chain: parts.chain.concat(),
            key: parts.key.to_vec(),
            bundle: parts.roots["td"].concat(),
            hint: String::new(),
        }
    }

    #[test]
    fn a_message_is_the_full_state() {
        let ours = svid();
        let other = Svid { spiffe_id: "spiffe://td/other".to_owned(), ..svid() };
        let state = |svids: &[&Svid]| SvidResponse {
            svids: svids.iter().map(|svid| (*svid).clone()).collect(),
            ..SvidResponse::default()
        };
        let read = |wanted: Option<&str>, state| {
            let plan = WorkloadApi { socket: None, spiffe_id: wanted.map(str::to_owned) };
            read(&plan, state, 1_700_000_000).map(|identity| identity.spiffe_id().as_str().to_owned())
        };
        assert_eq!(read(None, state(&[&ours])).unwrap(), US);
        assert_eq!(read(Some(US), state(&[&other, &ours])).unwrap(), US);
        for (wanted, told) in [(None, state(&[])), (Some(US), state(&[])), (Some(US), state(&[&other]))] {
            assert!(matches!(read(wanted, told), Err(SourceError::Withdrawn(_))), "{wanted:?}");
        }
        // The message and its certificate say different names.
        assert!(matches!(read(None, state(&[&other])), Err(SourceError::Failed(_))));
        let mut federated = state(&[&ours]);
        federated.federated_bundles.insert("spiffe://Other".to_owned(), ours.bundle.clone());
        assert!(matches!(read(None, federated), Err(SourceError::Failed(_))));
        let mut empty = state(&[&ours]);
        empty.federated_bundles.insert("spiffe://other".to_owned(), Vec::new());
        assert_eq!(read(None, empty).unwrap(), US);
        let (empty, shown) = (Svid { bundle: Vec::new(), ..svid() }, format!("{ours:?}"));
        assert!(matches!(read(None, state(&[&empty])), Err(SourceError::Failed(_))));
        assert_eq!(shown, format!("Svid {{ spiffe_id: {US:?}, .. }}"), "no key is ever shown");
    }

    #[test]
    fn sockets_are_named_in_several_ways() {
        for (socket, expected) in [
            ("unix:///run/a.sock", Some("/run/a.sock")),
            ("unix:/run/a.sock", Some("/run/a.sock")),
            ("/run/a.sock", Some("/run/a.sock")),
            ("tcp://127.0.0.1:8081", Some("127.0.0.1:8081")),
            ("unix://run/a.sock", None),
            ("a.sock", None),
        ] {
            let found = door(socket).ok().map(|door| match door {
                Door::Unix(path) => path.display().to_string(),
                Door::Tcp(address) | Door::Tls { address, .. } => address,
            });
            assert_eq!(found.as_deref(), expected, "{socket}");
        }
    }
}
