//! Where certificates come from: folders of PEM as kubelet swaps them, keys of every kind, and an authority of our own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::backend::Backend;
use crate::support::certificate::Authority;
use crate::support::curl::{Answer, curl};
use crate::support::gateway::{HTTPS, Plan, TestGateway, until};
use crate::support::manifests::{all_to, https_gateway, route_on, service};

/// A server with a route for each name, with the certificate of the same place.
fn sites(web: &Backend, names: &[&str], credential: impl Fn(&str) -> String) -> String {
    let mut manifests = service("web.test", web.address, "HTTP");
    for name in names {
        let gateway = name.replace('*', "any").replace('.', "-");
        manifests += &https_gateway(&gateway, name, &credential(name));
        manifests += &route_on(&format!("istio-system/{gateway}"), &gateway, name, &all_to("web.test"));
    }
    manifests
}

fn get(gateway: &TestGateway, host: &str, authority: &Path) -> Answer {
    let resolve = format!("{host}:{HTTPS}:{}", gateway.address);
    let authority = authority.to_string_lossy();
    curl(&format!("https://{host}:{HTTPS}/"), &["--resolve", &resolve, "--cacert", &authority])
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl runs");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes a volume as kubelet does: all files of a new generation at once.
fn swap(volume: &Path, generation: &str, certificate: &str, key: &str) {
    let folder = volume.join(generation);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("tls.crt"), certificate).unwrap();
    fs::write(folder.join("tls.key"), key).unwrap();
    for file in ["tls.crt", "tls.key"] {
        let _ = symlink(format!("..data/{file}"), volume.join(file));
    }
    symlink(generation, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

#[test]
fn a_mounted_secret_is_served_swapped_and_kept_when_it_turns_bad() {
    let (web, authority) = (Backend::http1("web"), Authority::new());
    let plan = Plan::new().settings("[tls]\nsecrets = \"certs\"\n").watching();
    let volume = plan.folder().join("certs/web-tls");
    let first = authority.identity(&["web.test", "first.test"]);
    swap(&volume, "..2026_1", &first.certificate, &first.key);
    let site = sites(&web, &["web.test"], |_| "web-tls".to_owned());
    let gateway = plan.manifest("site.yaml", &site).start();
    authority.write(gateway.folder());
    let ca = gateway.folder().join("ca.pem");
    assert_eq!(get(&gateway, "web.test", &ca).status, 200);

    let shows = |name: &str| gateway.admin("/certs").json().to_string().contains(name).then_some(());
    assert!(shows("first.test").is_some());
    let second = authority.identity(&["web.test", "second.test"]);
    swap(&volume, "..2026_2", &second.certificate, &second.key);
    fs::remove_dir_all(volume.join("..2026_1")).unwrap();
    until(|| shows("second.test")).expect("the new generation is served by itself");
    assert_eq!(get(&gateway, "web.test", &ca).status, 200);

    swap(&volume, "..2026_3", &first.certificate, &second.key);
    let problems = || gateway.metric("limani_certificate_problems", "kind=\"wrong_key\"");
    until(|| (problems() == 1.0).then_some(())).expect("the wrong key is counted");
    assert!(shows("second.test").is_some(), "the last good certificate stays");
    assert_eq!(get(&gateway, "web.test", &ca).status, 200);
    let status = gateway.admin("/status").json().to_string();
    assert!(status.contains("LIM0070") && status.contains("web-tls"), "{status}");
}

#[test]
fn keys_of_every_kind_and_encoding_are_served_and_others_named() {
    let web = Backend::http1("web");
    let good = [
        ("p256", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out tls.key"),
        ("p384", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out tls.key"),
        ("p521", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out tls.key"),
        ("sec1", "ecparam -name prime256v1 -genkey -out tls.key"),
        ("rsa", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out tls.key"),
        ("pkcs1", "genrsa -traditional -out tls.key 2048"),
        ("ed25519", "genpkey -algorithm ED25519 -out tls.key"),
    ];
    let bad = [
        ("weak", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out tls.key", "weak_key"),
        ("koblitz", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out tls.key", "unsupported_key"),
        ("ed448", "genpkey -algorithm ED448 -out tls.key", "unsupported_key"),
        ("locked", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out tls.key", "encrypted_key"),
    ];
    let plan = Plan::new().settings("[tls]\nsecrets = [\"certs\"]\n");
    let certs = plan.folder().join("certs");
    let all: Vec<(&str, &str)> = good.iter().copied().chain(bad.iter().map(|(name, make, _)| (*name, *make))).collect();
    for (name, make) in &all {
        let folder = certs.join(name);
        fs::create_dir_all(&folder).unwrap();
        openssl(&folder, make);
        openssl(
            &folder,
            &format!(
                "req -x509 -new -key tls.key -out tls.crt -days 2 -subj /CN={name} -addext subjectAltName=DNS:{name}.test"
            ),
        );
        if *name == "locked" {
            openssl(&folder, "pkcs8 -topk8 -in tls.key -out locked.key -passout pass:secret");
            fs::rename(folder.join("locked.key"), folder.join("tls.key")).unwrap();
        }
        fs::set_permissions(folder.join("tls.key"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let hosts: Vec<String> = all.iter().map(|(name, _)| format!("{name}.test")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let site = sites(&web, &hosts, |host| host.trim_end_matches(".test").to_owned());
    let gateway = plan.manifest("site.yaml", &site).start();
    for (name, _) in good {
        let answer = get(&gateway, &format!("{name}.test"), &certs.join(name).join("tls.crt"));
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    let status = gateway.admin("/status").json().to_string();
    for (name, _, kind) in bad {
        assert_eq!(get(&gateway, &format!("{name}.test"), &certs.join(name).join("tls.crt")).status, 0, "{name}");
        assert!(gateway.metric("limani_certificate_problems", &format!("kind=\"{kind}\"")) >= 1.0, "{kind}");
        assert!(status.contains(&format!("Secret istio-system/{name}")), "{name} is told: {status}");
    }
}

#[test]
fn an_authority_of_our_own_issues_and_this_machine_can_trust_it() {
    let web = Backend::http1("web");
    let site = sites(&web, &["web.localhost", "*.dev.example.com"], |_| "local-ca://".to_owned());
    let gateway = Plan::new().settings("[tls]\nlocal_ca = true\n").manifest("site.yaml", &site).start();
    let authority = gateway.folder().join("local-ca/ca.crt");
    for host in ["web.localhost", "a.dev.example.com"] {
        until(|| (get(&gateway, host, &authority).status == 200).then_some(())).expect(host);
    }
    let mode = fs::metadata(gateway.folder().join("local-ca/ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let root = gateway.folder().join("root");
    let anchors = root.join("usr/local/share/ca-certificates");
    fs::create_dir_all(&anchors).unwrap();
    let program = root.join("usr/sbin/update-ca-certificates");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::write(&program, format!("#!/bin/sh\necho ran >> {}\n", root.join("ran").display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let settings = gateway.folder().join("limani.toml");
    let trust = |more: &[&str]| {
        let mut command = crate::support::gateway::limani();
        let output =
            command.arg("trust").arg("-c").arg(&settings).arg("--root").arg(&root).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let kept = || fs::read_dir(&anchors).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let ran = || fs::read_to_string(root.join("ran")).unwrap_or_default().lines().count();
    let told = trust(&["--print"]);
    assert!(told.contains("local-ca/ca.crt") && told.contains("update-ca-certificates"), "{told}");
    assert_eq!((kept().len(), ran()), (0, 0));
    trust(&[]);
    assert_eq!(fs::read(&kept()[0]).unwrap(), fs::read(&authority).unwrap());
    trust(&[]);
    assert_eq!((kept().len(), ran()), (1, 2));
    assert_eq!(get(&gateway, "web.localhost", &kept()[0]).status, 200);
    trust(&["--remove"]);
    assert_eq!((kept().len(), ran()), (0, 3));
}
