//! What do the stand-ins for Grafana, Kiali and Zipkin answer? A page that says what it is and where the real one fits.

use super::answer::{Answer, html, not_found};

/// A dashboard that the demo stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dashboard {
    Grafana,
    Kiali,
    Tracing,
}

impl Dashboard {
    /// The name of its Service in namespace istio-system.
    pub(super) fn service(self) -> &'static str {
        match self {
            Dashboard::Grafana => "grafana",
            Dashboard::Kiali => "kiali",
            Dashboard::Tracing => "tracing",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Dashboard::Grafana => "Grafana",
            Dashboard::Kiali => "Kiali",
            Dashboard::Tracing => "Zipkin",
        }
    }
}

/// The page at `/`; other paths are not found.
pub(super) fn serve(dashboard: Dashboard, path: &str) -> Answer {
    if path != "/" {
        return not_found();
    }
    let (title, service) = (dashboard.title(), dashboard.service());
    html(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title} (stand-in)</title></head>\n\
         <body style=\"font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto\">\n<h1>{title}, a stand-in</h1>\n\
         <p>This page is not {title}. The demo serves it to show that the gateway found the host name \
         <code>{service}.demo.localhost</code> and forwarded the request to the Service <code>{service}</code>.</p>\n\
         <p>To see the real {title} here, give its address to <code>{service}.istio-system.svc.cluster.local</code> \
         under <code>[hosts]</code> in limani.toml. The manifests stay as they are.</p>\n</body>\n</html>\n"
    ))
}
