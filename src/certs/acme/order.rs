//! How does an order become a certificate? Order, proofs, request, chain (RFC 8555 section 7.4).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, AuthorizedIdentifier, CertificateIdentifier, ChallengeStatus, Error, NewOrder,
    OrderStatus, RetryPolicy,
};
use rustls::pki_types::CertificateDer;

use super::answers::Answers;
use super::choice::{self, Failed};
use super::client::Client;
use super::nonce::patiently;
use super::request::{self, Request};
use super::{failure, persist, shown};
use crate::certs::challenges::Challenges;
use crate::certs::issue::{FailureKind, IssueError, Issued, Order};
use crate::snapshot::issuance::{AcmeIssuer, ChallengeKind, Identifier};

/// How long a CA may look for proofs, and how long it may sign.
const PATIENCE: Duration = Duration::from_secs(180);

/// What orders of one issuer are made with.
pub(super) struct Ordering<'a> {
    pub issuer: &'a AcmeIssuer,
    pub client: &'a Client,
    pub challenges: &'a Arc<Challenges>,
    pub failed: &'a Failed,
}

/// An open order, and what is needed to finish it.
struct Open<'a> {
    ordering: &'a Ordering<'a>,
    account: &'a Account,
    order: instant_acme::Order,
}

impl Ordering<'_> {
    /// Places an order: with the profile if the CA offers it, as a replacement if the CA takes it as one.
    pub(super) async fn place(&self, account: &Account, order: Order<'_>) -> Result<instant_acme::Order, Error> {
        let identifiers: Vec<_> = order.wanted.identifiers.iter().map(to_library).collect();
        let profile = order.wanted.profile.as_deref().or(self.issuer.profile.as_deref());
        let offered = profile.filter(|name| account.profiles().any(|offered| offered.name == *name));
        if let (Some(profile), None) = (profile, offered) {
            tracing::warn!(ca = self.client.host(), profile, "the CA does not offer this profile; ordered without");
        }
        let plain = || {
            let order = NewOrder::new(&identifiers);
            if let Some(profile) = offered { order.profile(profile) } else { order }
        };
        let replaced = order.replaces.map(CertificateDer::from);
        let Some(replaced) = replaced.as_ref().and_then(|old| CertificateIdentifier::try_from(old).ok()) else {
            return patiently!(account.new_order(&plain()));
        };
        let replacing = plain().replaces(replaced);
        match patiently!(account.new_order(&replacing)) {
            Err(error) if self.is_about_replacing(&error) => {
                tracing::info!(ca = self.client.host(), %error, "ordered anew and not as a replacement");
                patiently!(account.new_order(&plain()))
            }
            placed => placed,
        }
    }

    /// Whether the same order could be taken if it replaced nothing (RFC 9773 section 5).
    fn is_about_replacing(&self, error: &Error) -> bool {
        match error {
            Error::Api(problem) => {
                let status = self.client.heard().status;
                failure::type_of(problem) == "alreadyReplaced"
                    || status == 409
                    || status == 404
                    || (failure::type_of(problem) == "malformed" && status == 400)
            }
            Error::Unsupported(_) => true,
            // The CA took the order, and left out whom it replaces.
            Error::Other(error) => !error.is::<super::client::Trouble>(),
            _ => false,
        }
    }

    /// Brings a placed order to its end.
    pub(super) async fn finish(
        &self,
        account: &Account,
        placed: instant_acme::Order,
        order: Order<'_>,
    ) -> Result<Issued, IssueError> {
        let mut open = Open { ordering: self, account, order: placed };
        let mut answers = Answers::default();
        let proven = open.prove(&mut answers).await;
        answers.withdraw().await;
        proven?;
        self.failed.forget(&order.wanted.identifiers);

        let (kind, identifiers) = (order.wanted.key, order.wanted.identifiers.clone());
        let made = tokio::task::spawn_blocking(move || request::make(kind, &identifiers)).await;
        let local = |message| IssueError { kind: FailureKind::Local, message, retry_after: None };
        let request = made
            .map_err(|error| local(format!("no key was made: {error}")))?
            .map_err(|error| local(format!("no key or request was made: {error}")))?;
        let chain = open.sign(&request).await?;
        Ok(Issued { chain, key: request.key() })
    }

    fn explain(&self, done: &str, error: Error) -> IssueError {
        failure::explain(self.client, done, error)
    }

    fn broken(&self, message: String) -> IssueError {
        IssueError {
            kind: FailureKind::Broken,
            message: format!("{} {message}", self.client.host()),
            retry_after: None,
        }
    }

    /// The CA offers nothing that the issuer's list, the solver and the identifier allow.
    fn no_way(&self, identifier: &Identifier, offered: &[ChallengeKind]) -> IssueError {
        let list = |kinds: &[ChallengeKind]| {
            let names: Vec<_> = kinds.iter().map(|kind| choice::name(*kind)).collect();
            if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
        };
        let hint = match (identifier, &self.issuer.dns) {
            (Identifier::Dns(name), None) if name.starts_with("*.") => {
                "; wildcards are proven in DNS: say how records are written, or use dns-persist-01"
            }
            (Identifier::Ip(_), _) => "; addresses are proven by http-01 or tls-alpn-01",
            _ => "",
        };
        IssueError {
            kind: FailureKind::Local,
            message: format!(
                "no challenge can prove {} to {}: it offers {}, and the issuer's challenges are {}{hint}",
                shown(identifier),
                self.client.host(),
                list(offered),
                list(&self.issuer.challenges),
            ),
            retry_after: None,
        }
    }
}

impl Open<'_> {
    /// Shows that all names are ours, and waits until the CA has seen it.
    async fn prove(&mut self, answers: &mut Answers) -> Result<(), IssueError> {
        if matches!(self.order.state().status, OrderStatus::Invalid | OrderStatus::Valid) {
            let status = self.order.state().status;
            return Err(self.ordering.broken(format!("answered with an order that is {status:?} from the start")));
        }
        let chosen = self.give(answers).await?;
        answers.seen().await?;
        self.announce(&chosen).await?;
        if self.order.state().status == OrderStatus::Ready {
            return Ok(());
        }
        let policy = RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.3).timeout(PATIENCE);
        match patiently!(self.order.poll_ready(&policy)) {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(self.unproven(None).await),
            Err(error @ Error::Api(_)) if self.order.state().status == OrderStatus::Invalid => {
                Err(self.unproven(Some(error)).await)
            }
            Err(error) => Err(self.ordering.explain("the proofs", error)),
        }
    }

    /// Answers a challenge of every authorization that is not valid yet; says which, in their order.
    async fn give(&mut self, answers: &mut Answers) -> Result<Vec<Option<ChallengeKind>>, IssueError> {
        let ordering = self.ordering;
        let issuer = ordering.issuer;
        let mut chosen = Vec::new();
        let fetched = patiently!(fetch(&mut self.order));
        fetched.map_err(|error| ordering.explain("an authorization", error))?;
        let mut authorizations = self.order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| ordering.explain("an authorization", error))?;
            match authorization.status {
                AuthorizationStatus::Valid => {
                    chosen.push(None);
                    continue;
                }
                AuthorizationStatus::Pending => {}
                status => return Err(ordering.broken(format!("gave an authorization that is {status:?}"))),
            }
            let identifier = of_library(&authorization.identifier())
                .ok_or_else(|| ordering.broken("wants something proven that nobody ordered".to_owned()))?;
            let offered: Vec<_> = authorization.challenges.iter().filter_map(|c| choice::of_type(&c.r#type)).collect();
            let kind = ordering.failed.choose(&identifier, &issuer.challenges, &offered, issuer.dns.is_some());
            let kind = kind.ok_or_else(|| ordering.no_way(&identifier, &offered))?;
            let Some(challenge) = authorization.challenge(choice::to_type(kind)) else {
                return Err(ordering.no_way(&identifier, &offered));
            };
            let proof = challenge.key_authorization();
            let given =
                answers.give(ordering.challenges, issuer.dns.as_ref(), (kind, &identifier), (&challenge.token, &proof));
            if let Err(error) = given.await {
                ordering.failed.note(identifier.clone(), kind);
                return Err(error);
            }
            chosen.push(Some(kind));
        }
        Ok(chosen)
    }

    /// Tells the CA that the answers are there.
    async fn announce(&mut self, chosen: &[Option<ChallengeKind>]) -> Result<(), IssueError> {
        let ordering = self.ordering;
        let mut chosen = chosen.iter();
        let mut authorizations = self.order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| ordering.explain("an authorization", error))?;
            let Some(Some(kind)) = chosen.next() else { continue };
            let Some(mut challenge) = authorization.challenge(choice::to_type(*kind)) else { continue };
            if let Err(error) = patiently!(challenge.set_ready()) {
                if let Some(identifier) = of_library(challenge.identifier()) {
                    ordering.failed.note(identifier, *kind);
                }
                return Err(ordering.explain(choice::name(*kind), error));
            }
        }
        Ok(())
    }

    /// Why the order failed: the CA's words about each name, and the kinds to pass over next time.
    async fn unproven(&mut self, error: Option<Error>) -> IssueError {
        let ordering = self.ordering;
        let mut reasons = Vec::new();
        let mut authorizations = self.order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let Ok(mut authorization) = authorization else { continue };
            let asked = patiently!(async { authorization.refresh().await.map(|_| ()) });
            if asked.is_err() || authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let Some(identifier) = of_library(&authorization.identifier()) else { continue };
            for challenge in &authorization.challenges {
                let Some(kind) = choice::of_type(&challenge.r#type) else { continue };
                if challenge.status != ChallengeStatus::Invalid && challenge.error.is_none() {
                    continue;
                }
                ordering.failed.note(identifier.clone(), kind);
                let words = challenge.error.as_ref().map(failure::sentence).unwrap_or_default();
                let advice = advice(ordering.client, self.account.id(), &identifier, kind);
                reasons.push(format!("{} by {}: {words}{advice}", shown(&identifier), choice::name(kind)));
            }
        }
        match (reasons.is_empty(), error) {
            (true, Some(error)) => ordering.explain("the proofs", error),
            (true, None) => ordering.broken("ended the order without a reason".to_owned()),
            (false, _) => IssueError {
                kind: FailureKind::Unproven,
                message: format!(
                    "{} could not see that the names are ours: {}",
                    ordering.client.host(),
                    reasons.join("; ")
                ),
                retry_after: None,
            },
        }
    }

    /// Hands the request in and fetches the chain.
    async fn sign(&mut self, request: &Request) -> Result<String, IssueError> {
        let ordering = self.ordering;
        let finalized = patiently!(self.order.finalize_csr(&request.csr));
        finalized.map_err(|error| ordering.explain("the request", error))?;
        let policy = RetryPolicy::new().initial_delay(Duration::from_millis(100)).backoff(1.4).timeout(PATIENCE);
        let chain = patiently!(self.order.poll_certificate(&policy));
        let chain = chain.map_err(|error| ordering.explain("the certificate", error))?;
        let chain = self.preferred(chain).await;
        match request.fault(&chain) {
            Some(fault) => Err(ordering.broken(format!("issued something else: {fault}"))),
            None => Ok(chain),
        }
    }

    /// The chain that the issuer's settings prefer, if the CA has it; else the one that is there.
    async fn preferred(&self, chain: String) -> String {
        let Some(root) = &self.ordering.issuer.preferred_chain else { return chain };
        if request::ends_under(&chain, root) {
            return chain;
        }
        let client = self.ordering.client;
        for address in client.heard().alternates {
            // The library has no door for other chains. It asks for them as for an order, and the client keeps what came.
            let asked = patiently!(self.account.order(address.clone()));
            let came = String::from_utf8_lossy(&client.heard().chain).into_owned();
            if asked.is_err() && request::ends_under(&came, root) {
                return came;
            }
        }
        tracing::warn!(ca = client.host(), preferred = root, "the CA has no such chain; its own choice is taken");
        chain
    }
}

/// Fetches the authorizations that are not known yet; those that are stay known.
async fn fetch(order: &mut instant_acme::Order) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        authorization?;
    }
    Ok(())
}

/// What people can do about a proof that failed.
fn advice(client: &Client, account: &str, identifier: &Identifier, kind: ChallengeKind) -> String {
    match kind {
        ChallengeKind::DnsPersist01 => match persist::for_account(client, account, identifier) {
            Ok(record) => format!(" [write the record {} TXT \"{}\"]", record.name, record.value),
            Err(_) => String::new(),
        },
        ChallengeKind::Http01 => " [port 80 of the name has to lead here]".to_owned(),
        ChallengeKind::TlsAlpn01 => " [port 443 of the name has to lead here, with TLS not ended before]".to_owned(),
        ChallengeKind::Dns01 => String::new(),
    }
}

fn to_library(identifier: &Identifier) -> instant_acme::Identifier {
    match identifier {
        Identifier::Dns(name) => instant_acme::Identifier::Dns(name.clone()),
        Identifier::Ip(address) => instant_acme::Identifier::Ip(*address),
    }
}

fn of_library(identifier: &AuthorizedIdentifier<'_>) -> Option<Identifier> {
    match (identifier.identifier, identifier.wildcard) {
        (instant_acme::Identifier::Dns(name), true) => {
            Some(Identifier::Dns(format!("*.{}", name.to_ascii_lowercase())))
        }
        (instant_acme::Identifier::Dns(name), false) => Some(Identifier::Dns(name.to_ascii_lowercase())),
        (instant_acme::Identifier::Ip(address), _) => Some(Identifier::Ip(*address)),
        _ => None,
    }
}
