//! What is there to see? The lines that the demo prints: what to open, and what to try with curl.

use std::fmt::Write;
use std::path::Path;

use super::Options;

/// Where `[tls] local_ca` keeps the certificate of the authority.
const AUTHORITY: &str = "local-ca/ca.crt";

/// One line to try.
struct Try {
    about: &'static str,
    /// `{http}`, `{https}` and `{ca}` stand for the demo's ports and the path of its authority.
    command: &'static str,
    /// What its output holds.
    shows: &'static str,
}

/// Every line to try; a test runs each as it is printed.
const TRY: &[Try] = &[
    Try {
        about: "The product page, by any host name",
        command: "curl -s http://localhost:{http}/productpage | grep '<title>'",
        shows: "Simple Bookstore App",
    },
    Try {
        about: "Reviews: nine visitors in ten see black stars (v2), one sees red stars (v3)",
        command: "for i in 1 2 3 4 5 6 7 8 9 10; do curl -s http://localhost:{http}/productpage | grep -o 'reviews-v[123]'; done",
        shows: "reviews-v2",
    },
    Try {
        about: "The test user jason always gets v3, by a rule on the header end-user",
        command: "curl -s -b session=jason http://localhost:{http}/productpage | grep -o '[0-9] of 5, red stars'",
        shows: "5 of 5, red stars",
    },
    Try {
        about: "A service inside, by its cluster name",
        command: "curl -s -H 'Host: details.default.svc.cluster.local' http://localhost:{http}/details/0",
        shows: "William Shakespeare",
    },
    Try {
        about: "HTTPS, with the demo's own authority",
        command: "curl -s --cacert {ca} https://www.bookinfo.localhost:{https}/productpage | grep '<title>'",
        shows: "Simple Bookstore App",
    },
    Try {
        about: "From HTTP to HTTPS",
        command: "curl -s -o /dev/null -w '%{http_code} %{redirect_url}\\n' http://secure.bookinfo.localhost:{http}/productpage",
        shows: "301 https://secure.bookinfo.localhost:{https}/productpage",
    },
    Try {
        about: "Grafana by host name",
        command: "curl -s http://grafana.demo.localhost:{http}/ | grep -o '<title>.*</title>'",
        shows: "Grafana (stand-in)",
    },
    Try {
        about: "Kiali by host name",
        command: "curl -s http://kiali.demo.localhost:{http}/ | grep -o '<title>.*</title>'",
        shows: "Kiali (stand-in)",
    },
    Try {
        about: "The tracing dashboard by host name",
        command: "curl -s http://tracing.demo.localhost:{http}/ | grep -o '<title>.*</title>'",
        shows: "Zipkin (stand-in)",
    },
    Try { about: "The gateway's own view", command: "curl -s http://{admin}/status", shows: "\"generation\"" },
    Try {
        about: "What Prometheus would read",
        command: "curl -s http://{metrics}/stats/prometheus | grep -m 1 '^istio_requests_total'",
        shows: "istio_requests_total{",
    },
];

/// The whole text for the terminal.
pub(super) fn print(options: &Options, folder: &Path) -> String {
    let mut page = format!(
        "The demo keeps its files in {}\n\nOpen in a browser:\n\
         \x20 http://localhost:{}/productpage\n\
         \x20 http://grafana.demo.localhost:{}/  (stand-ins: grafana, kiali, tracing)\n\
         \x20 http://{}/  (the gateway's admin page)\n\n\
         Try with curl (the comment says what it shows):\n",
        folder.display(),
        options.http,
        options.http,
        options.admin(),
    );
    for line in TRY {
        let (command, shows) = (fill(line.command, options, folder), fill(line.shows, options, folder));
        // Writing to a String cannot fail.
        let _ = write!(page, "\n  # {}: {shows}\n  {command}\n", line.about);
    }
    let _ = write!(
        page,
        "\nEdit {} while it runs: a saved change is in force at once, and open connections stay.\n\
         `limani trust -c {}` lets this machine trust its HTTPS.\n\
         The next start writes these files anew. Ctrl-C stops the demo.\n",
        folder.join("manifests/reviews.yaml").display(),
        folder.join("limani.toml").display()
    );
    page
}

fn fill(text: &str, options: &Options, folder: &Path) -> String {
    text.replace("{http}", &options.http.to_string())
        .replace("{https}", &options.https.to_string())
        .replace("{admin}", &options.admin().to_string())
        .replace("{metrics}", &options.metrics().to_string())
        .replace("{ca}", &folder.join(AUTHORITY).display().to_string())
}
