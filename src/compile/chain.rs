//! In which order are the certificates of a server sent, and is one of them missing?

use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS;
use x509_parser::prelude::{ParsedExtension, X509Certificate};

use super::authorities::is_issued_by;
use super::certificate_fault::Fault;

/// The places of the certificates as they are to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub places: Vec<usize>,
    pub faults: Vec<Fault>,
    /// The issuer of a leaf that stands alone; whether clients know it, nobody can tell here.
    pub lone: Option<String>,
}

/// The order for the certificate that comes first. `known` are the authorities that stand beside the chain.
///
/// An order in which every certificate is that of an issuer of an earlier one is left as it is: it may hold several ways
/// to several roots.
pub(super) fn order(chain: &[X509Certificate<'_>], known: &[X509Certificate<'_>]) -> Order {
    let issued = |issuer: usize, earlier: &[usize]| {
        chain.get(issuer).is_some_and(|issuer| {
            earlier.iter().filter_map(|at| chain.get(*at)).any(|certificate| is_issued_by(certificate, issuer))
        })
    };
    let given: Vec<usize> = (0..chain.len()).collect();
    let is_good = given.iter().skip(1).all(|place| issued(*place, given.get(..*place).unwrap_or_default()));
    let mut faults = Vec::new();
    let places = if is_good {
        given
    } else {
        let mut places = vec![0];
        let mut rest: Vec<usize> = given.iter().copied().skip(1).collect();
        while let Some(at) = rest.iter().position(|place| issued(*place, &places)) {
            places.push(rest.remove(at));
        }
        if !rest.is_empty() {
            faults.push(Fault::Unrelated);
        }
        places.extend(rest);
        if places != given {
            faults.push(Fault::WrongOrder);
        }
        places
    };
    let mut lone = None;
    if let Some(certificate) = chain.first()
        && !is_issued_by(certificate, certificate)
        && !(1..chain.len()).any(|place| issued(place, &[0]))
        && !known.iter().any(|authority| is_issued_by(certificate, authority))
    {
        let issuer = certificate.issuer().to_string();
        match known.is_empty() && !says_where_its_issuer_is(certificate) {
            true => lone = Some(issuer),
            false => faults.push(Fault::MissingIntermediate(issuer)),
        }
    }
    Order { places, faults, lone }
}

/// Whether it names a place of its issuer's certificate, as those of public CAs do, whose roots issue no servers.
fn says_where_its_issuer_is(certificate: &X509Certificate<'_>) -> bool {
    certificate.iter_extensions().any(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => {
            access.accessdescs.iter().any(|one| one.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair};
    use x509_parser::prelude::FromDer;

    use super::*;

    fn signed(name: &str, by: Option<&Issuer<'static, KeyPair>>, access: bool) -> (Vec<u8>, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.use_authority_key_identifier_extension = true;
        if access {
            // caIssuers at http://a
            let content = b"\x30\x16\x30\x14\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x08http://a".to_vec();
            params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content));
        }
        let key = KeyPair::generate().unwrap();
        let made = match by {
            Some(by) => params.signed_by(&key, by),
            None => params.self_signed(&key),
        };
        (made.unwrap().der().to_vec(), Issuer::new(params, key))
    }

    #[test]
    fn chains_are_put_right_and_gaps_told() {
        let (root, by_root) = signed("root", None, false);
        let (middle, by_middle) = signed("middle", Some(&by_root), false);
        let (leaf, _) = signed("leaf", Some(&by_middle), false);
        let (public, _) = signed("public", Some(&by_middle), true);
        let (other, _) = signed("other", None, false);
        let missing = || vec![Fault::MissingIntermediate("CN=middle".into())];
        for (case, chain, known, places, faults, lone) in [
            ("right", vec![&leaf, &middle, &root], vec![], vec![0, 1, 2], vec![], false),
            ("without its root", vec![&leaf, &middle], vec![], vec![0, 1], vec![], false),
            ("root too early", vec![&leaf, &root, &middle], vec![], vec![0, 2, 1], vec![Fault::WrongOrder], false),
            ("a stranger", vec![&leaf, &middle, &other], vec![], vec![0, 1, 2], vec![Fault::Unrelated], false),
            ("alone", vec![&leaf], vec![], vec![0], vec![], true),
            ("alone beside its issuer", vec![&leaf], vec![&middle], vec![0], vec![], false),
            ("alone beside its root", vec![&leaf], vec![&root], vec![0], missing(), false),
            ("alone from a public CA", vec![&public], vec![], vec![0], missing(), false),
            ("signed by itself", vec![&other], vec![], vec![0], vec![], false),
        ] {
            let chain: Vec<_> = chain.into_iter().map(|der| X509Certificate::from_der(der).unwrap().1).collect();
            let known: Vec<_> = known.into_iter().map(|der| X509Certificate::from_der(der).unwrap().1).collect();
            let lone = lone.then(|| "CN=middle".to_owned());
            assert_eq!(order(&chain, &known), Order { places, faults, lone }, "{case}");
        }
    }
}
