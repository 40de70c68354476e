//! Where does a connection go that is not HTTP, and how long may it last?

use std::time::Duration;

use super::route::ClusterReference;

/// Envoy's tcp_proxy (Istio VirtualService.tcp and tls).
#[derive(Debug)]
pub(crate) struct TcpProxy {
    /// For explain: `VirtualService default/raw tcp[0]`.
    pub origin: Box<str>,
    /// The Gateway server's port number.
    pub port: u16,
    /// None: every connection is accepted and closed.
    pub destinations: Vec<TcpDestination>,
    /// The sum of their weights.
    pub total_weight: u32,
    /// Connections of one client address go to one endpoint (consistentHash.useSourceIp).
    pub by_source: bool,
    /// A connection without bytes in either direction ends after this time; `None` lets it live.
    pub idle_timeout: Option<Duration>,
    /// A connection ends after this time, busy or not.
    pub max_duration: Option<Duration>,
}

/// Istio RouteDestination.
#[derive(Debug)]
pub(crate) struct TcpDestination {
    pub cluster: ClusterReference,
    /// More than 0.
    pub weight: u32,
}

impl TcpProxy {
    /// The cluster that a random number falls on, by weight; `None` if there is no destination.
    pub(crate) fn choose(&self, random: u32) -> Option<&ClusterReference> {
        let mut rest = random.checked_rem(self.total_weight)?;
        let chosen = self.destinations.iter().find(|destination| match rest.checked_sub(destination.weight) {
            Some(left) => {
                rest = left;
                false
            }
            None => true,
        });
        chosen.map(|destination| &destination.cluster)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn weights_share_the_numbers() {
        let destination = |weight: u32| TcpDestination {
            cluster: ClusterReference::Missing(Arc::from(format!("w{weight}"))),
            weight,
        };
        let proxy = |destinations, total_weight| TcpProxy {
            origin: "".into(),
            port: 1,
            destinations,
            total_weight,
            by_source: false,
            idle_timeout: None,
            max_duration: None,
        };
        let two = proxy(vec![destination(1), destination(3)], 4);
        let names: Vec<_> = (0..4).filter_map(|n| two.choose(n)).map(|cluster| cluster.name().to_string()).collect();
        assert_eq!(names, ["w1", "w3", "w3", "w3"]);
        assert!(proxy(Vec::new(), 0).choose(7).is_none());
    }
}
