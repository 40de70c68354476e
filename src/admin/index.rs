//! What does the first page of the admin port show? Where we are, and where everything else stands.

use std::fmt::Write as _;

use crate::control::lifecycle::Stage;
use crate::control::status::Status;

/// The pages, with a word on each.
const LINKS: &[(&str, &str)] = &[
    ("/status", "what is in force, and the findings of the last reload"),
    ("/routes", "hosts and rules, in the order in which they are tried"),
    ("/certs", "certificates: what is served, until when, and when the next is got"),
    ("/config_dump", "the whole snapshot"),
    ("/stats/prometheus", "metrics"),
    ("/logging", "the log level; POST /logging?level=debug sets it"),
    ("/ready", "readiness"),
];

/// What can be set going.
const POSTS: &[(&str, &str)] = &[
    ("/reload?wait", "reads the configuration again, answers once it is in force"),
    ("/explain", "tells what would become of a request, or what became of one: see `limani explain`"),
    ("/drain", "fails readiness and tells connections to go"),
    ("/quitquitquit", "ends the process at once"),
];

/// The page in HTML.
pub(super) fn page(status: &Status, stage: Stage) -> String {
    let mut html = String::from(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>Limani</title>\
         <style>body{font:15px/1.5 system-ui,sans-serif;margin:2em;max-width:60em}td{padding:.1em 1em .1em 0;\
         vertical-align:top}code{font-size:14px}</style><h1>Limani</h1>",
    );
    let _ = write!(html, "<p>Version {}, {stage}, generation {}", escaped(status.version), status.generation);
    if let Some(last) = &status.last_reload {
        let (errors, warnings) = (last.errors(), last.warnings());
        let _ = write!(html, "; last reload: {} ({errors} errors, {warnings} warnings)", last.verdict.as_str());
    }
    html.push_str("</p><h2>Listeners</h2><table>");
    for listener in &status.listeners {
        let chains = escaped(&listener.chains.join(", "));
        let _ = write!(html, "<tr><td><code>{}</code><td>{chains}", listener.address);
    }
    html.push_str("</table><h2>Pages</h2><table>");
    for (path, about) in LINKS {
        let _ = write!(html, "<tr><td><a href=\"{path}\"><code>{path}</code></a><td>{}", escaped(about));
    }
    html.push_str("</table><h2>By POST</h2><table>");
    for (path, about) in POSTS {
        let _ = write!(html, "<tr><td><code>{path}</code><td>{}", escaped(about));
    }
    html.push_str("</table></html>\n");
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
