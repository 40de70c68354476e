//! Do a WasmPlugin and a TrafficExtension keep the rules of their kinds? (Istio ValidateWasmPlugin,
//! ValidateTrafficExtension)

use std::collections::HashSet;

use super::faults::{At, Faults};
use super::names::check_port;
use super::selection::{Attachment, check_attachment};
use super::urls::{self, Url};
use crate::resource::extensions::{EnvValueSource, TrafficExtension, TrafficSelector, VmConfig, WasmPlugin};

/// What a WasmPlugin and the wasm of a TrafficExtension share.
struct Plugin<'a> {
    url: &'a str,
    sha256: &'a str,
    image_pull_secret: Option<&'a str>,
    plugin_name: Option<&'a str>,
    vm_config: Option<&'a VmConfig>,
}

/// Checks a WasmPlugin.
pub(super) fn check_wasm(plugin: &WasmPlugin, faults: &mut Faults) {
    let spec = At::root("spec");
    let attachment = Attachment {
        selector: plugin.selector.as_ref(),
        target_ref: plugin.target_ref.as_ref(),
        target_refs: &plugin.target_refs,
    };
    check_attachment(&attachment, spec, faults);
    let shared = Plugin {
        url: &plugin.url,
        sha256: &plugin.sha256,
        image_pull_secret: plugin.image_pull_secret.as_deref(),
        plugin_name: plugin.plugin_name.as_deref(),
        vm_config: plugin.vm_config.as_ref(),
    };
    check_plugin(&shared, spec, faults);
    check_match(&plugin.matches, spec, faults);
}

/// Checks a TrafficExtension.
pub(super) fn check_traffic_extension(extension: &TrafficExtension, faults: &mut Faults) {
    let spec = At::root("spec");
    let attachment =
        Attachment { selector: extension.selector.as_ref(), target_ref: None, target_refs: &extension.target_refs };
    check_attachment(&attachment, spec, faults);
    let one = extension.wasm.is_some() != extension.lua.is_some();
    faults.require(one, spec, "an extension is either wasm or lua");
    if let Some(wasm) = &extension.wasm {
        let shared = Plugin {
            url: &wasm.url,
            sha256: &wasm.sha256,
            image_pull_secret: wasm.image_pull_secret.as_deref(),
            plugin_name: wasm.plugin_name.as_deref(),
            vm_config: wasm.vm_config.as_ref(),
        };
        check_plugin(&shared, spec.field("wasm"), faults);
    }
    if let Some(lua) = &extension.lua {
        let at = spec.field("lua");
        faults.require(!lua.inline_code.is_empty(), at.field("inlineCode"), "the code has to be given");
    }
    check_match(&extension.matches, spec, faults);
}

fn check_plugin(plugin: &Plugin<'_>, at: At<'_>, faults: &mut Faults) {
    faults.check(at.field("url"), check_url(plugin.url));
    let hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    let sha = plugin.sha256.is_empty() || plugin.sha256.len() == 64 && plugin.sha256.bytes().all(hex);
    faults.require(sha, at.field("sha256"), "a SHA-256 is 64 digits of 0-9 and a-f");
    let names = [("imagePullSecret", plugin.image_pull_secret, 253), ("pluginName", plugin.plugin_name, 255)];
    for (field, name, longest) in names {
        let good = name.is_none_or(|name| (1..=longest).contains(&name.len()));
        faults.require(good, at.field(field), "the name is empty or too long");
    }
    if let Some(vm) = plugin.vm_config {
        let at = at.field("vmConfig");
        check_environment(vm, at, faults);
    }
}

/// A reference without a scheme is an image of a registry.
fn check_url(url: &str) -> Result<(), String> {
    if url.is_empty() {
        return Err("the URL has to be given".into());
    }
    match urls::split(url)? {
        Url { scheme: Some(scheme), .. }
            if !["http", "https", "oci", "file"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) =>
        {
            Err(format!("the scheme `{scheme}` is none of http, https, oci and file"))
        }
        Url { scheme: Some(_), authority } => authority.map_or(Ok(()), urls::check_authority),
        Url { scheme: None, .. } if url.starts_with('/') => Ok(()),
        Url { scheme: None, .. } => urls::check_authority(url.split(['/', '?']).next().unwrap_or_default()),
    }
}

const MAX_ENVIRONMENT: usize = 256;
const MAX_VARIABLE: usize = 2048;

fn check_environment(vm: &VmConfig, at: At<'_>, faults: &mut Faults) {
    faults.require(vm.env.len() <= MAX_ENVIRONMENT, at.field("env"), "at most 256 variables can be given");
    let mut names = HashSet::new();
    for (index, variable) in vm.env.iter().enumerate() {
        let at = at.item("env", index);
        let good = (1..=MAX_ENVIRONMENT).contains(&variable.name.len());
        faults.require(good, at.field("name"), "the name is empty or too long");
        faults.require(names.insert(&variable.name), at.field("name"), "the variable stands here twice");
        if let Some(value) = &variable.value {
            let inline = variable.value_from == EnvValueSource::Inline;
            faults.require(inline, at.field("value"), "a variable of the host has no value here");
            faults.require(value.len() <= MAX_VARIABLE, at.field("value"), "the value is longer than 2048 bytes");
        }
    }
}

fn check_match(selectors: &[TrafficSelector], spec: At<'_>, faults: &mut Faults) {
    for (index, selector) in selectors.iter().enumerate() {
        let at = spec.item("match", index);
        for (index, port) in selector.ports.iter().enumerate() {
            faults.check(at.item("ports", index).field("number"), check_port(port.number));
        }
    }
}
