//! Do several Gateways have one host on one port? (Istio's gateway.ConflictingGatewayAnalyzer: IST0145.)

use std::collections::{BTreeSet, HashMap};

use crate::analysis::report::Report;
use crate::analysis::world::{World, identity, is_part, show_selector};
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{Gateway, Server};

/// Which Gateways have a host on a port, and where it is bound: of several servers of a Gateway on one port, Istio
/// looks at the last.
type Claims<'a> = HashMap<(u32, &'a str), Vec<Claim<'a>>>;

#[derive(Clone, Copy)]
struct Claim<'a> {
    gateway: &'a Object<Gateway>,
    bind: &'a str,
}

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let claims = claims(world);
    for gateway in &world.resources.gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let rivals = rivals(world, gateway, server, &claims);
            if !rivals.is_empty() {
                let message = format!(
                    "port {} has a host of this server ({}) in other Gateways, too: {}",
                    server.port.number,
                    server.hosts.join(", "),
                    rivals.into_iter().collect::<Vec<_>>().join(", ")
                );
                let hint = "give each host of a port to one Gateway";
                let path = format!("spec.servers[{index}].hosts");
                report.tell_with_hint(gateway, &codes::GATEWAY_CONFLICT, &path, message, hint);
            }
        }
    }
}

fn claims<'a>(world: &World<'a>) -> Claims<'a> {
    let mut claims = Claims::new();
    for gateway in &world.resources.gateways {
        let last: HashMap<u32, &Server> = gateway.spec.servers.iter().map(|it| (it.port.number, it)).collect();
        for (port, server) in last {
            for host in &server.hosts {
                claims.entry((port, host)).or_default().push(Claim { gateway, bind: &server.bind });
            }
        }
    }
    claims
}

/// Other Gateways, for the same workloads, with a host of the server.
fn rivals(world: &World<'_>, gateway: &Object<Gateway>, server: &Server, claims: &Claims<'_>) -> BTreeSet<String> {
    let hosts = server.hosts.iter();
    let claims = hosts.filter_map(|host| claims.get(&(server.port.number, host.as_str()))).flatten();
    let others = claims.filter(|claim| identity(claim.gateway) != identity(gateway) && claim.bind == server.bind);
    others
        .filter(|claim| share_a_workload(world, gateway, claim.gateway))
        .take(ENOUGH)
        .map(|claim| claim.gateway.key())
        .collect()
}

/// Rivals that are named for one server.
const ENOUGH: usize = 10;

fn share_a_workload(world: &World<'_>, a: &Object<Gateway>, b: &Object<Gateway>) -> bool {
    let (a, b) = (&a.spec.selector, &b.spec.selector);
    if a == b {
        return true;
    }
    let (shown_a, shown_b) = (show_selector(a), show_selector(b));
    (shown_a.contains(&shown_b) || shown_b.contains(&shown_a))
        && world.chosen(a).any(|workload| is_part(b, workload.labels))
}
