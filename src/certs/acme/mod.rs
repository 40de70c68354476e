//! How are certificates got from a CA that speaks ACME (RFC 8555)? One issuer, its account and its orders.

mod account;
mod answers;
mod choice;
mod client;
mod dns;
mod failure;
mod nonce;
mod order;
mod persist;
mod quote;
mod request;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::account::Accounts;
use self::choice::Failed;
use self::client::Client;
use self::order::Ordering;
pub(crate) use self::persist::Record;
use super::challenges::Challenges;
use super::issue::{FailureKind, Issue, IssueError, Issued, Order, RenewalWindow};
use super::store::Store;
use crate::snapshot::issuance::{AcmeIssuer, Identifier};

/// An order that is not done after this is given up.
const LONGEST_ORDER: Duration = Duration::from_secs(15 * 60);

/// A CA, and what was learned of it. Kept as long as its settings stay the same.
pub(crate) struct Acme {
    name: String,
    issuer: AcmeIssuer,
    store: Store,
    challenges: Arc<Challenges>,
    failed: Failed,
}

impl Acme {
    /// `name` is the issuer's: its account is kept under it.
    pub(crate) fn new(name: &str, issuer: AcmeIssuer, store: Store, challenges: Arc<Challenges>) -> Acme {
        Acme { name: name.to_owned(), issuer, store, challenges, failed: Failed::default() }
    }

    /// The record that proves a name for dns-persist-01. Registers the account if there is none yet.
    ///
    /// # Errors
    ///
    /// The CA cannot be asked, or does not say by which name it stands in DNS.
    pub(crate) async fn dns_record(&self, identifier: &Identifier) -> Result<Record, IssueError> {
        let client = Client::new(&self.issuer)?;
        let account = self.accounts(&client).get().await?;
        persist::for_account(&client, account.id(), identifier)
    }

    fn accounts<'a>(&'a self, client: &'a Client) -> Accounts<'a> {
        Accounts { name: &self.name, issuer: &self.issuer, store: &self.store, client }
    }

    async fn order(&self, order: Order<'_>) -> Result<Issued, IssueError> {
        let client = Client::new(&self.issuer)?;
        let accounts = self.accounts(&client);
        let ordering =
            Ordering { issuer: &self.issuer, client: &client, challenges: &self.challenges, failed: &self.failed };
        let mut account = accounts.get().await?;
        let mut placed = ordering.place(&account, order).await;
        if let Err(error) = &placed
            && accounts.is_lost(&account, error).await
        {
            account = accounts.replace(account.id()).await?;
            placed = ordering.place(&account, order).await;
        }
        let placed = placed.map_err(|error| failure::explain(&client, "the order", error))?;
        ordering.finish(&account, placed, order).await
    }
}

#[async_trait]
impl Issue for Acme {
    async fn issue(&self, order: Order<'_>) -> Result<Issued, IssueError> {
        tokio::time::timeout(LONGEST_ORDER, self.order(order)).await.unwrap_or_else(|_| {
            let message = format!("the order at {} took too long and was given up", self.issuer.directory);
            Err(IssueError { kind: FailureKind::Broken, message, retry_after: None })
        })
    }

    async fn renewal_window(&self, certificate: &[u8]) -> Result<Option<RenewalWindow>, IssueError> {
        window::ask(&Client::new(&self.issuer)?, certificate).await
    }
}

/// An identifier as messages show it.
fn shown(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Dns(name) => name.clone(),
        Identifier::Ip(address) => address.to_string(),
    }
}
