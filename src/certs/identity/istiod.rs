//! Who does Istio's CA say we are? CreateCertificate of istiod and istio-csr, with a new key for each certificate.
//!
//! The token is read again for each call, because kubelet renews it; the roots are looked at all the time, because they
//! change without our certificate.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Request, Status};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::messages::{CertificateRequest, CertificateResponse};
use super::schedule::{self, CALL, LEAST_PAUSE};
use super::svid::{Identity, Parts};
use super::transport::{Client, Door, words};
use super::{Source, SourceError};
use crate::base::clock;
use crate::base::spiffe::SpiffeId;
use crate::snapshot::identity::{Istiod, Workload};

const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// How often the file of roots is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// No token and no file of certificates is longer.
const MOST_BYTES: u64 = 1 << 20;

/// A CA that signs what we ask for.
pub(super) struct FromIstiod {
    plan: Istiod,
    /// What it gave last, with the root of its chain.
    current: Option<Given>,
}

struct Given {
    identity: Identity,
    /// The roots that came with it, in DER.
    roots: Vec<Vec<u8>>,
    renewal: Instant,
    /// The file of roots as it was read last.
    root_file: Vec<u8>,
}

/// A question that is ready to be asked.
struct Question {
    door: Door,
    request: CertificateRequest,
    headers: MetadataMap,
    key: Zeroizing<Vec<u8>>,
    /// The file of roots, and what is in it in DER.
    root_file: Vec<u8>,
    roots: Vec<Vec<u8>>,
}

impl FromIstiod {
    pub(super) fn new(plan: Istiod) -> Self {
        FromIstiod { plan, current: None }
    }

    /// Waits for the time to renew; gives the identity with other roots, if they change before that.
    async fn rest(&mut self) -> Option<Identity> {
        let given = self.current.as_mut()?;
        loop {
            tokio::select! {
                () = sleep_until(given.renewal) => return None,
                () = sleep(LOOK) => {}
            }
            let Ok(read) = read_file(&self.plan.root).await else { continue };
            if read == given.root_file {
                continue;
            }
            // What is half written, or nonsense, is read again.
            let Ok(roots) = certificates(&read) else { continue };
            given.root_file = read;
            let Some(identity) = given.identity.with_roots(&union(roots, &given.roots)) else { continue };
            given.identity = identity.clone();
            return Some(identity);
        }
    }

    async fn fetch(&mut self) -> Result<Identity, String> {
        let question = self.question().await?;
        let answer = call(&question).await.map_err(|status| format!("{}: {}", self.plan.address, words(&status)))?;
        let roots = question.roots.clone();
        let (identity, own_roots) = read(answer, question.key, roots, clock::now())
            .map_err(|reason| format!("{}: its answer cannot be used: {reason}", self.plan.address))?;
        let chance = fastrand::f64();
        let left = schedule::until_renewal(identity.not_before(), identity.not_after(), clock::now(), chance);
        let renewal = Instant::now() + left.max(LEAST_PAUSE);
        let given = Given { identity: identity.clone(), roots: own_roots, renewal, root_file: question.root_file };
        self.current = Some(given);
        Ok(identity)
    }

    /// A new key, and what is read anew for each call.
    async fn question(&self) -> Result<Question, String> {
        let plan = &self.plan;
        let root_file = file(&plan.root).await?;
        let roots = certificates(&root_file).map_err(|reason| format!("{}: {reason}", plan.root.display()))?;
        let token = match read_file(&plan.token).await.map(String::from_utf8) {
            Ok(Ok(token)) => Some(Zeroizing::new(token)),
            Ok(Err(_)) => return Err(format!("{}: it is no text", plan.token.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{}: {error}", plan.token.display())),
        };
        let shown = match &token {
            Some(_) => None,
            None => Some(self.shown().await?),
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| format!("no key: {error}"))?;
        let request = CertificateRequest {
            csr: signing_request(&plan.workload, &key)?,
            validity_duration: i64::try_from(plan.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: plan.signer.as_deref().map(signer),
        };
        Ok(Question {
            door: door(plan, &roots, shown)?,
            request,
            headers: headers(token.as_deref().map(String::as_str), &plan.cluster)?,
            key: Zeroizing::new(key.serialize_der()),
            root_file,
            roots,
        })
    }

    /// The certificate that stands for us where there is no token: the last one, or the first of this machine. PEM.
    async fn shown(&self) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), String> {
        if let Some(Given { identity, .. }) = &self.current {
            return Ok((identity.chain().as_bytes().to_vec(), Zeroizing::new(identity.key().as_bytes().to_vec())));
        }
        let missing =
            || format!("there is no token {}, and no certificate that stands for it", self.plan.token.display());
        let (certificate, key) = self.plan.first.as_ref().ok_or_else(missing)?;
        Ok((file(certificate).await?, Zeroizing::new(file(key).await?)))
    }
}

#[async_trait]
impl Source for FromIstiod {
    async fn next(&mut self) -> Result<Identity, SourceError> {
        if let Some(identity) = self.rest().await {
            return Ok(identity);
        }
        self.fetch().await.map_err(SourceError::Failed)
    }
}

/// Asks until there is an answer, a refusal, or no time left.
async fn call(question: &Question) -> Result<CertificateResponse, Status> {
    let end = Instant::now() + CALL.1;
    let mut failures = 0;
    loop {
        let asked = timeout_at(end, ask(question)).await;
        let status = match asked {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) => status,
            Err(_) => return Err(Status::deadline_exceeded("there was no answer in ten seconds")),
        };
        failures += 1;
        let wait = schedule::wait_in_call(failures, fastrand::f64());
        if !may_pass(status.code()) || Instant::now() + wait >= end {
            return Err(status);
        }
        sleep(wait).await;
    }
}

async fn ask(question: &Question) -> Result<CertificateResponse, Status> {
    let mut client = Client::connect(question.door.clone()).await?;
    let mut request = Request::new(question.request.clone());
    *request.metadata_mut() = question.headers.clone();
    client.ask(request, CREATE).await
}

/// Whether a failure may be over in a moment.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded)
}

fn door(plan: &Istiod, roots: &[Vec<u8>], shown: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>) -> Result<Door, String> {
    let host = plan.address.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']));
    let host = host.ok_or_else(|| format!("`{}` is no host with a port", plan.address))?;
    let name = plan.server_name.as_deref().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name.clone()).map_err(|_| format!("`{name}` is no server name"))?;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().map(|root| CertificateDer::from_slice(root)));
    let builder = ClientConfig::builder().with_root_certificates(store);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(&chain)?.into_iter().map(CertificateDer::from).collect();
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| "our own key is no PEM".to_owned())?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Door::Tls { address: plan.address.clone(), name, config: Arc::new(config) })
}

fn headers(token: Option<&str>, cluster: &str) -> Result<MetadataMap, String> {
    let mut headers = MetadataMap::new();
    if let Some(token) = token {
        let value = MetadataValue::<Ascii>::try_from(format!("Bearer {}", token.trim()));
        let mut value = value.map_err(|_| "the token holds letters that no token has".to_owned())?;
        value.set_sensitive(true);
        headers.insert("authorization", value);
    }
    let cluster =
        MetadataValue::<Ascii>::try_from(cluster).map_err(|_| format!("`{cluster}` is no name of a cluster"))?;
    headers.insert("clusterid", cluster);
    Ok(headers)
}

fn signer(name: &str) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(name.to_owned())) };
    Struct { fields: BTreeMap::from([("CertSigner".to_owned(), value)]) }
}

/// In PEM, with one URI and no subject.
fn signing_request(workload: &Workload, key: &KeyPair) -> Result<String, String> {
    let Workload { trust_domain, namespace, service_account } = workload;
    let id = SpiffeId::of_workload(trust_domain, namespace, service_account)?;
    let uri = Ia5String::try_from(id.as_str()).map_err(|error| error.to_string())?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.serialize_request(key).and_then(|request| request.pem()).map_err(|error| error.to_string())
}

/// The identity of an answer, and the roots that came with it: the last certificate of the chain is one.
fn read(
    answer: CertificateResponse,
    key: Zeroizing<Vec<u8>>,
    known: Vec<Vec<u8>>,
    now: i64,
) -> Result<(Identity, Vec<Vec<u8>>), String> {
    if answer.cert_chain.len() <= 1 {
        return Err("it has to be a chain of at least two certificates".to_owned());
    }
    let mut chain = certificates(answer.cert_chain.join("\n").as_bytes())?;
    let roots: Vec<Vec<u8>> = chain.pop_if(|last| is_self_issued(last)).into_iter().collect();
    let mut parts = Parts { chain, key, ..Parts::default() };
    parts.roots.insert(trust_domain(&parts), union(known, &roots));
    Ok((Identity::judge(&parts, now)?, roots))
}

fn is_self_issued(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, root)| root.subject() == root.issuer())
}

/// That of the leaf; empty if it has none, which `judge` will find.
fn trust_domain(parts: &Parts) -> String {
    let leaf = parts.chain.first().and_then(|leaf| crate::snapshot::certificate::Certificate::read(leaf));
    let id = leaf.and_then(|leaf| SpiffeId::parse(leaf.uris.first()?).ok());
    id.map(|id| id.trust_domain().to_owned()).unwrap_or_default()
}

fn union(mut some: Vec<Vec<u8>>, more: &[Vec<u8>]) -> Vec<Vec<u8>> {
    for one in more {
        if !some.contains(one) {
            some.push(one.clone());
        }
    }
    some
}

/// The certificates of a file in PEM, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).map(|one| one.map(|der| der.to_vec())).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("it holds no certificate in PEM".to_owned()),
    }
}

async fn file(path: &Path) -> Result<Vec<u8>, String> {
    read_file(path).await.map_err(|error| format!("{}: {error}", path.display()))
}

async fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(MOST_BYTES + 1).read_to_end(&mut bytes).await?;
    match bytes.len() as u64 > MOST_BYTES {
        true => Err(io::Error::other("it is longer than 1 MiB")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::svid::example::{US, authority, parts};
    use super::*;

    fn pem(der: &[u8]) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", der))
    }

    #[test]
    fn a_chain_needs_more_than_the_leaf_and_its_root_is_believed() {
        let (given, (known, _)) = (parts(&[US], |_| ()), authority());
        let root = given.roots["td"][0].clone();
        let read = |chain: &[&[u8]]| {
            let answer = CertificateResponse { cert_chain: chain.iter().map(|der| pem(der)).collect() };
            read(answer, given.key.clone(), vec![known.clone()], 1_700_000_000)
        };
        for chain in [&[][..], &[&*given.chain[0]]] {
            assert!(read(chain).unwrap_err().contains("at least two"), "{}", chain.len());
        }
        let (identity, roots) = read(&[&given.chain[0], &root]).unwrap();
        assert_eq!(roots, [root]);
        let secret = identity.secret();
        let count = |key: &str| certificates(&secret[key]).unwrap().len();
        assert_eq!((count("tls.crt"), count("ca.crt")), (1, 2), "the root is not shown to others, but believed");
        let followed = identity.with_roots(std::slice::from_ref(&known)).unwrap().secret();
        assert_eq!(certificates(&followed["ca.crt"]).unwrap(), [known]);
        assert_eq!(followed["tls.crt"], secret["tls.crt"]);
    }

    #[tokio::test]
    async fn a_file_that_is_too_long_is_not_read() {
        let short = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(short.path(), vec![b'a'; 1 << 20]).unwrap();
        assert_eq!(read_file(short.path()).await.unwrap().len(), 1 << 20);
        assert!(read_file(Path::new("/dev/zero")).await.unwrap_err().to_string().contains("longer than 1 MiB"));
    }

    #[test]
    fn a_request_names_one_uri_and_nobody() {
        let workload = |domain: &str| Workload {
            trust_domain: domain.to_owned(),
            namespace: "a".to_owned(),
            service_account: "b".to_owned(),
        };
        let key = KeyPair::generate().unwrap();
        assert!(signing_request(&workload("td"), &key).unwrap().contains("CERTIFICATE REQUEST"));
        assert!(signing_request(&workload("t d"), &key).is_err());
        let headers = headers(Some("secret\n"), "east").unwrap();
        assert_eq!(headers.get("authorization").unwrap(), "Bearer secret");
        assert!(!format!("{headers:?}").contains("secret"), "{headers:?}");
        assert!(super::headers(Some("a\nb"), "east").is_err());
        assert_eq!(signer("one").fields.len(), 1);
    }
}
