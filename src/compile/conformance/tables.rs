//! The rows of Istio's table tests: host algebra, delegates, names of services, mirrors.

use serde_json::{Value, json};

use super::super::{delegate, mirrors, outbound, routes};
use super::skipped;
use crate::base::host;
use crate::conformance::Verdict;
use crate::resource::networking::{HttpMatchRequest, HttpRoute};

pub(super) fn judge(table: &Value) -> Verdict {
    let Some(rows) = table["cases"].as_array() else { return skipped("the table has no rows") };
    let name = text(&table["name"]);
    // The tables of relations between hosts are told apart by the test that they are from.
    let relation = ["NameMatches", "NameSubsetOf", "NamesIntersection"];
    let relation = relation.iter().find(|test| text(&table["source"]).ends_with(&format!("Test{test}")));
    let name = relation.copied().unwrap_or(name);
    for row in rows {
        let (found, wanted) = match name {
            "host-sort-order" => {
                let mut sorted = strings(&row["in"]);
                sorted.sort_by(|a, b| host::by_specificity(a, b));
                (json!(sorted), &row["want"])
            }
            "host-for-namespace" => {
                let hosts = strings(&row["hosts"]);
                let hosts = hosts.iter().map(String::as_str);
                (json!(routes::offered_to(hosts, text(&row["namespace"])).collect::<Vec<_>>()), &row["want"])
            }
            "NameMatches" => (json!(host::matches(text(&row["a"]), text(&row["b"]))), &row["out"]),
            "NameSubsetOf" => (json!(host::is_subset_of(text(&row["a"]), text(&row["b"]))), &row["out"]),
            "NamesIntersection" => {
                let (a, b) = (strings(&row["a"]), strings(&row["b"]));
                let [a, b]: [Vec<&str>; 2] = [&a, &b].map(|names| names.iter().map(String::as_str).collect());
                (json!(host::intersection(&a, &b)), &row["intersection"])
            }
            "delegate-match-conflict" => match (entry(&row["root"]), entry(&row["leaf"])) {
                (Some(root), Some(leaf)) => (json!(delegate::conflict(&root, &leaf)), &row["expected"]),
                _ => return skipped("a row has no pair of matches"),
            },
            "delegate-merge-matches" => {
                let all = |key: &str| entries(&row[key]).unwrap_or_default();
                let joined = delegate::join_matches(&all("root"), &all("delegate"));
                let wanted = match &row["expected"] {
                    Value::Null => Some(None),
                    wanted => entries(wanted).map(Some),
                };
                if Some(joined.clone().filter(|joined| !joined.is_empty())) == wanted {
                    continue;
                }
                return Verdict::Failed(format!("{joined:?}: {row}"));
            }
            "sidecar-vhost-domains" => {
                let mut wanted = strings(&row["want"]);
                let aliases: Vec<String> = row["attributes"]["Aliases"].as_str().map(hostname).into_iter().collect();
                let each_pod = row["resolution"] == "model.Passthrough";
                let home = text(&row["proxyDNSDomain"]);
                let mut found = outbound::names_of_service(text(&row["hostname"]), &aliases, each_pod, home);
                wanted.sort();
                found.sort();
                if found == wanted {
                    continue;
                }
                return Verdict::Failed(format!("{found:?}: {row}"));
            }
            "mirror-percent" => {
                let Ok(route) = serde_json::from_value::<HttpRoute>(row.clone()) else {
                    return skipped("a row is no HTTP route");
                };
                let share = mirrors::share(route.mirror_percentage, route.mirror_percent);
                let shown = if share.millionths() == 0 { Value::Null } else { json!(share.percent()) };
                (shown, &row["effective"])
            }
            _ => return skipped("no table of this name is known"),
        };
        if wanted.is_null() && name != "mirror-percent" {
            return skipped("a row does not say what is wanted");
        }
        if found != *wanted {
            return Verdict::Failed(format!("{found}: {row}"));
        }
    }
    Verdict::Passed
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|one| text(one).to_owned()).collect()
}

fn entry(value: &Value) -> Option<HttpMatchRequest> {
    serde_json::from_value(value.clone()).ok()
}

/// `None` if the case says something else.
fn entries(value: &Value) -> Option<Vec<HttpMatchRequest>> {
    value.as_array()?.iter().map(|one| serde_json::from_value(one.clone()).ok()).collect()
}

/// The name in the Go expression of an alias.
fn hostname(expression: &str) -> String {
    let rest = expression.split("'Hostname': '").nth(1).unwrap_or_default();
    rest.split('\'').next().unwrap_or_default().to_owned()
}
