//! Do the shipped settings, manifests, deployments and the README's commands hold?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

    let secret = fs::read_to_string(path("conf/tls/secret.yaml")).unwrap();
    fs::write(path("conf/demo/secret.yaml"), secret.replace("example-certificate", "bookinfo-certificate")).unwrap();
    let versions =
        [1, 2, 3].map(|n| format!("{{ address = \"127.0.0.{n}:9080\", labels = {{ version = \"v{n}\" }} }}"));
    let demo = format!(
        "[source]\nmanifests = [\"conf/demo\"]\n\
         variables = {{ INGRESS_DOMAIN = \"demo.localhost\", HTTPS_PORT = 8443 }}\n\
         [hosts]\n\"reviews.default.svc.cluster.local\" = [{}]\n",
        versions.join(", ")
    );
    fs::write(path("demo.toml"), demo).unwrap();
    is_clean(&["-c", &path("demo.toml")]);
}

#[test]
fn every_key_of_the_annotated_settings_exists() {
    let folder = shipped();
    let annotated = fs::read_to_string(folder.path().join("conf/limani.toml")).unwrap();
    let (keys, _) = annotated.split_once("# [[route]]").expect("routes come last");
    let text: String = keys
        .lines()
        .map(|line| {
            line.strip_prefix("# ").filter(|rest| rest.contains(" = ") && !rest.starts_with("A line")).unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count() > 30, "{text}");
    let settings = folder.path().join("conf/every-key.toml");
    fs::write(&settings, text).unwrap();
    fs::write(folder.path().join("conf/mesh.yaml"), "").unwrap();
    let files = [("server.pem", "cert-chain.pem"), ("server.key", "key.pem"), ("ca.pem", "root-cert.pem")];
    for (made, wanted) in files {
        let conf = folder.path().join("conf");
        fs::copy(conf.join("tls").join(made), conf.join(wanted)).expect("the development authority has made it");
    }
    is_clean(&["-c", &settings.to_string_lossy()]);
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
