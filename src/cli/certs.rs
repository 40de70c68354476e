//! Which certificates does the gateway show, until when, and when does it get the next ones?

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::remote::{Remote, word};
use super::{Format, say};

#[derive(Debug, Args)]
pub(super) struct Certs {
    #[command(flatten)]
    remote: Remote,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Certs {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let page = self.remote.get("certs")?;
        match self.format {
            Format::Json => say(&page),
            Format::Text => say(&told(&serde_json::from_str(&page)?)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `/certs` in two tables: what is served, and what is kept in date.
fn told(page: &Value) -> String {
    let served = served(page);
    let mut text = match served.is_empty() {
        true => "no certificate is served\n".to_owned(),
        false => table(&["LISTENER", "SERVER NAMES", "CERTIFICATE", "ENDS"], served),
    };
    let kept: Vec<&Value> = page["kept"].as_array().into_iter().flatten().collect();
    if !kept.is_empty() {
        let rows = kept.iter().map(|status| kept_row(status)).collect();
        text.push('\n');
        text += &table(&["KEPT", "ISSUER", "STATE", "ENDS", "NEXT RENEWAL", "WHY"], rows);
    }
    let remarks =
        kept.iter().flat_map(|status| remarks(status).into_iter().map(|remark| (word(status, "folder"), remark)));
    for (folder, remark) in remarks {
        text += &format!("\n{folder}: {remark}");
    }
    match page["problem"].as_str() {
        Some(problem) => text += &format!("\nnothing is issued: {problem}\n"),
        None if text.ends_with('\n') => {}
        None => text.push('\n'),
    }
    text
}

fn served(page: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for chain in page["served"].as_array().into_iter().flatten() {
        let (listener, names) = (word(chain, "listener"), list(&chain["serverNames"]));
        let names = if names.is_empty() { "*".to_owned() } else { names };
        let tls = &chain["tls"];
        if let Some(reason) = tls["unavailable"].as_str() {
            rows.push(vec![listener.clone(), names.clone(), format!("none: {reason}"), String::new()]);
        }
        for certificate in tls["certificates"].as_array().into_iter().flatten() {
            let (source, ends) = (word(certificate, "source"), word(certificate, "notAfter"));
            rows.push(vec![listener.clone(), names.clone(), source, ends]);
        }
    }
    rows
}

fn kept_row(status: &Value) -> Vec<String> {
    let issued = &status["issued"];
    let issuer = match word(issued, "by") {
        by if by.is_empty() => list(&status["issuers"]),
        by => by,
    };
    let why = word(&status["why"], "reason");
    vec![
        word(status, "folder"),
        issuer,
        word(status, "state"),
        word(issued, "notAfter"),
        word(status, "nextRenewal"),
        why,
    ]
}

/// What does not fit in a row.
fn remarks(status: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    let filled = |field: &str| Some(word(status, field)).filter(|text| !text.is_empty());
    remarks.extend(filled("problem").map(|problem| format!("its files cannot be used: {problem}")));
    remarks.extend(filled("work").filter(|work| work != "at work"));
    let error = &status["lastError"];
    if error.is_object() {
        let (failures, at) = (word(status, "failures"), word(error, "at"));
        let issuer = Some(word(error, "issuer")).filter(|issuer| !issuer.is_empty());
        let issuer = issuer.map(|issuer| format!("{issuer}: ")).unwrap_or_default();
        let (kind, message) = (word(error, "kind"), word(error, "message"));
        remarks.push(format!("failed {failures} times, last at {at} ({kind}): {issuer}{message}"));
    }
    let served = &status["served"];
    if word(served, "result") == "old" {
        remarks.push(format!("it is not served yet: {}", word(served, "detail")));
    }
    let why = Some(word(&status["why"], "explanation")).filter(|page| !page.is_empty());
    remarks.extend(why.map(|page| format!("its issuer explains the renewal at {page}")));
    remarks
}

fn list(values: &Value) -> String {
    let values: Vec<&str> = values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    values.join(",")
}

/// Columns as wide as what stands in them.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let columns = all.first().map_or(0, Vec::len);
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn certificates_are_told_in_two_tables() {
        let page = json!({
            "served": [
                {"listener": "0.0.0.0:443", "chain": "c", "serverNames": ["a.com"], "tls": {"certificates": [
                    {"source": "Secret istio-system/acme:a.com", "notAfter": "2027-01-01T00:00:00Z"}]}},
                {"listener": "0.0.0.0:444", "chain": "d", "serverNames": [], "tls": {"unavailable": "no Secret"}},
            ],
            "kept": [{
                "folder": "hosts/a.com", "names": ["a.com"], "issuers": ["letsencrypt"], "state": "due",
                "issued": {"by": "letsencrypt", "notAfter": "2027-01-01T00:00:00Z"},
                "nextRenewal": "2026-12-01T00:00:00Z", "why": {"reason": "third-of-life"}, "failures": 2,
                "lastError": {"kind": "unproven", "message": "no answer", "issuer": "letsencrypt", "at": "T"},
            }],
        });
        assert_eq!(
            told(&page),
            "LISTENER     SERVER NAMES  CERTIFICATE                     ENDS\n\
             0.0.0.0:443  a.com         Secret istio-system/acme:a.com  2027-01-01T00:00:00Z\n\
             0.0.0.0:444  *             none: no Secret\n\n\
             KEPT         ISSUER       STATE  ENDS                  NEXT RENEWAL          WHY\n\
             hosts/a.com  letsencrypt  due    2027-01-01T00:00:00Z  2026-12-01T00:00:00Z  third-of-life\n\n\
             hosts/a.com: failed 2 times, last at T (unproven): letsencrypt: no answer\n"
        );
        assert_eq!(told(&json!({"served": [], "kept": []})), "no certificate is served\n");
    }
}
