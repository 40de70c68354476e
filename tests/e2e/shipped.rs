//! Do the shipped settings, manifests, deployments and the README's commands hold?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regex::Regex;
use tempfile::TempDir;

use crate::support::gateway::limani;

/// A copy of what is shipped, with certificates where conf/ expects them.
fn shipped() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for the copy");
    for part in ["conf", "deploy", "certs"] {
        copy(&root().join(part), &folder.path().join(part));
    }
    // By its interpreter: a file that was just written may still be busy when other tests start processes.
    let script = folder.path().join("certs/make-dev-ca.sh");
    let made = Command::new("bash").arg(script).output().expect("bash is installed");
    assert!(made.status.success(), "{}", told(&made));
    folder
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder is made");
    for entry in fs::read_dir(from).expect("a shipped folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a file is copied");
        }
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// `limani check` with these arguments finds nothing to complain about, not even with `--strict`.
fn is_clean(arguments: &[&str]) {
    let output = limani().args(["check", "--strict"]).args(arguments).output().expect("the command runs");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", told(&output));
}

#[test]
fn every_shipped_configuration_is_right() {
    let folder = shipped();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    for settings in ["conf/limani.toml", "conf/https.toml", "conf/vm.toml"] {
        is_clean(&["-c", &path(settings)]);
    }
    let kubernetes = fs::read_to_string(path("deploy/kubernetes/settings/limani.toml")).unwrap();
    assert!(kubernetes.contains("/etc/limani-manifests"), "the Deployment mounts the manifests there");
    fs::write(path("kubernetes.toml"), kubernetes.replace("/etc/limani-manifests", "deploy/kubernetes/manifests"))
        .unwrap();
    is_clean(&["-c", &path("kubernetes.toml")]);

    let versions =
        [1, 2, 3].map(|n| format!("{{ address = \"127.0.0.{n}:9080\", labels = {{ version = \"v{n}\" }} }}"));
    let demo = format!(
        "[source]\nmanifests = [\"conf/demo\"]\n\
         variables = {{ INGRESS_DOMAIN = \"demo.localhost\", HTTPS_PORT = 8443 }}\n\
         [tls]\nlocal_ca = true\n\
         [hosts]\n\"reviews.default.svc.cluster.local\" = [{}]\n",
        versions.join(", ")
    );
    fs::write(path("demo.toml"), demo).unwrap();
    is_clean(&["-c", &path("demo.toml")]);
}

/// A table of the annotated settings: its header, and its keys with their lines, those behind `# ` as well.
struct Table {
    header: String,
    keys: Vec<(String, String)>,
}

/// The tables up to the `[[route]]` lines.
fn annotated(text: &str) -> Vec<Table> {
    let (text, _) = text.split_once("# [[route]]").expect("routes come last");
    let header = Regex::new(r"^(?:# )?(\[.+\])$").expect("a pattern");
    let key = Regex::new(r#"^(?:# )?(("[^"]+"|\w+) = .*)$"#).expect("a pattern");
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        if let Some(found) = header.captures(line) {
            tables.push(Table { header: found[1].to_owned(), keys: Vec::new() });
        } else if let Some(found) = key.captures(line) {
            let table = tables.last_mut().expect("keys stand in tables");
            table.keys.push((found[2].to_owned(), found[1].to_owned()));
        }
    }
    tables
}

/// Settings with every key; where there are several lines for one, `choice` says which. What belongs to one issuer of
/// ACME stands either with `[acme]` or, `with_issuers`, where they are listed.
fn written_out(tables: &[Table], choice: usize, with_issuers: bool) -> String {
    let mut text = String::new();
    for Table { header, keys } in tables {
        if !with_issuers && header == "[[acme.issuer]]" {
            continue;
        }
        text += &format!("{header}\n");
        let elsewhere = match (header.as_str(), with_issuers) {
            ("[acme]", true) => &["directory", "root", "profile", "preferred_chain", "eab"][..],
            (_, true) => &[],
            (_, false) => &["issuers"],
        };
        let mut written = Vec::new();
        for (name, _) in keys.iter().filter(|(name, _)| !elsewhere.contains(&name.as_str())) {
            if !written.contains(&name) {
                written.push(name);
                let lines: Vec<_> = keys.iter().filter(|(other, _)| other == name).collect();
                text += &format!("{}\n", lines[choice.min(lines.len() - 1)].1);
            }
        }
    }
    text
}

#[test]
fn every_key_of_the_annotated_settings_exists() {
    let folder = shipped();
    let conf = folder.path().join("conf");
    let tables = annotated(&fs::read_to_string(conf.join("limani.toml")).unwrap());
    let keys: usize = tables.iter().map(|table| table.keys.len()).sum();
    assert!(tables.len() > 10 && keys > 60, "{} tables, {keys} keys", tables.len());
    fs::write(conf.join("mesh.yaml"), "").unwrap();
    let files = [("server.pem", "cert-chain.pem"), ("server.key", "key.pem"), ("ca.pem", "root-cert.pem")];
    fs::create_dir(conf.join("identity")).unwrap();
    for (made, wanted) in files {
        for place in [conf.join(wanted), conf.join("identity").join(wanted)] {
            fs::copy(conf.join("tls").join(made), place).expect("the development authority has made it");
        }
    }
    fs::create_dir(conf.join("certs")).unwrap();
    fs::write(conf.join("ticket-secrets"), "a secret of at least thirty-two characters\n").unwrap();
    for (choice, with_issuers) in [(0, true), (1, false), (2, true)] {
        let settings = conf.join("every-key.toml");
        fs::write(&settings, written_out(&tables, choice, with_issuers)).unwrap();
        is_clean(&["-c", &settings.to_string_lossy()]);
    }
}

/// The blocks of a page in this language, each with its line.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<(usize, &'a str)> {
    let begin = format!("```{language}\n");
    let starts = page.match_indices(&begin).map(|(at, _)| at + begin.len());
    let block = |at: usize| {
        let rest = &page[at..];
        (page[..at].lines().count() + 1, rest.split_once("\n```").map_or(rest, |(block, _)| block))
    };
    starts.map(block).collect()
}

/// A block of settings or manifests may leave out what is not its point, but all that it says can be read and is known.
#[test]
fn the_examples_of_the_pages_are_understood() {
    let folder = shipped();
    let docs = fs::read_dir(root().join("docs")).expect("pages").map(|entry| entry.expect("an entry").path());
    let pages: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    let mut tried = 0;
    for page in pages.iter().chain([&root().join("README.md")]) {
        let text = fs::read_to_string(page).expect("the page is there");
        for (language, file) in [("toml", "example.toml"), ("yaml", "example.yaml")] {
            for (line, block) in blocks(&text, language) {
                let path = folder.path().join("conf").join(file);
                fs::write(&path, block).unwrap();
                let mut command = limani();
                command.arg("check").args(if language == "toml" { &["-c"][..] } else { &[] }).arg(&path);
                let found = told(&command.output().expect("the command runs"));
                let misread = ["LIM0001", "LIM0002", "LIM0010", "LIM0012", "LIM0013", "LIM0016", "LIM0017", "LIM0022"];
                let misread = misread.iter().find(|code| found.contains(*code));
                assert!(misread.is_none(), "{}:{line}: {found}", page.display());
                tried += 1;
            }
        }
    }
    assert!(tried > 0, "the pages have examples");
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard = fs::read_to_string(root().join("deploy/grafana/limani.json")).unwrap();
    let published = fs::read_to_string(root().join("src/telemetry/metrics.rs")).unwrap();
    let asked = dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut asked: Vec<_> = asked.filter(|word| word.starts_with("limani_") || word.starts_with("istio_")).collect();
    asked.sort_unstable();
    asked.dedup();
    assert!(asked.len() > 10, "{asked:?}");
    for name in asked {
        let family = name.trim_end_matches("_bucket").trim_end_matches("_sum");
        assert!(published.contains(&format!("\"{family}\"")), "{name} is not published");
    }
}

#[test]
fn the_pages_say_what_works() {
    let folder = shipped();
    let binary = Path::new(env!("CARGO_BIN_EXE_limani")).parent().expect("a folder of binaries");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    for page in ["README.md", "docs/from-istio.md"] {
        let text = fs::read_to_string(root().join(page)).expect("the page is there");
        let mut tried = 0;
        for block in text.split("<!-- tested -->\n```bash\n").skip(1) {
            let (script, _) = block.split_once("\n```").expect("the block ends");
            let mut command = Command::new("bash");
            let output = command.args(["-ec", script]).current_dir(folder.path()).env("PATH", &path).output().unwrap();
            assert!(output.status.success(), "{page}: {script}\n{}", told(&output));
            tried += 1;
        }
        assert!(tried > 0, "no block of {page} is marked as tested");
    }
}
