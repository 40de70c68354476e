//! One analyzer for each question about the whole: those of `istioctl analyze` that concern a gateway, and our own.

mod alpha_annotations;
mod certificate_conflicts;
mod coalescing;
mod conditions;
mod deprecated;
mod destination_hosts;
mod destination_subsets;
mod entry_addresses;
mod entry_protocols;
mod envoy_filters;
mod gateway_api_versions;
mod gateway_conflicts;
mod gateway_ports;
mod gateway_secrets;
mod gateway_selectors;
mod jwks_fetches;
mod jwt_claim_routes;
mod match_cover;
mod mesh_hosts;
mod mesh_rules;
mod passthrough_cover;
mod policy_workloads;
mod port_names;
mod rule_targets;
mod selectors;
mod server_verification;
mod shadowed_rules;
mod shared_certificates;
mod sidecar_selectors;
mod telemetry_providers;
mod telemetry_selectors;
#[cfg(test)]
mod tests;
mod user_ids;
mod virtual_service_gateways;

use super::changes::Input::{self, *};
use super::report::Report;
use super::world::{View, World};
use crate::resource::meta::Object;
use crate::resource::networking::VirtualService;

/// One question.
pub(super) struct Analyzer {
    /// Istio's name for it, if Istio has it; else our own.
    #[cfg_attr(not(test), expect(dead_code, reason = "the cases name their analyzer"))]
    pub name: &'static str,
    concern: Concern,
    /// Where it looks: it is asked again only if something there has changed.
    pub inputs: &'static [Input],
    pub ask: Ask,
}

/// How it is asked.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    /// Once.
    Whole(fn(&World<'_>, &mut Report<'_>)),
    /// For each VirtualService alone, of which there may be very many. `VirtualServices` is no input of such a one.
    EachVirtualService(fn(&World<'_>, &Object<VirtualService>, &mut Report<'_>)),
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Concern {
    /// Whoever runs this gateway: asked at every reload.
    Gateway,
    /// Whoever runs a mesh of Istio: asked where the manifests are taken for a whole cluster.
    Mesh,
}

impl Analyzer {
    const fn whole(
        name: &'static str,
        concern: Concern,
        inputs: &'static [Input],
        ask: fn(&World<'_>, &mut Report<'_>),
    ) -> Self {
        Analyzer { name, concern, inputs, ask: Ask::Whole(ask) }
    }

    const fn each(
        name: &'static str,
        inputs: &'static [Input],
        ask: fn(&World<'_>, &Object<VirtualService>, &mut Report<'_>),
    ) -> Self {
        Analyzer { name, concern: Concern::Gateway, inputs, ask: Ask::EachVirtualService(ask) }
    }

    /// Whether it is asked in this view.
    pub(super) fn concerns(&self, view: View) -> bool {
        self.concern == Concern::Gateway || view == View::Cluster
    }
}

use Concern::{Gateway as OfGateways, Mesh as OfMeshes};

/// Every analyzer.
pub(super) const ANALYZERS: &[Analyzer] = &[
    // VirtualServices
    Analyzer::each(
        "virtualservice.GatewayAnalyzer",
        &[Gateways, KubernetesGateways],
        virtual_service_gateways::analyze,
    ),
    Analyzer::each("hosts that no server serves", &[Gateways], virtual_service_gateways::analyze_hosts),
    Analyzer::each("virtualservice.DestinationHostAnalyzer", &[Services, ServiceEntries], destination_hosts::analyze),
    Analyzer::whole("virtualservice.DestinationHostAnalyzer", OfGateways, &[VirtualServices], mesh_rules::analyze),
    Analyzer::each("virtualservice.DestinationRuleAnalyzer", &[DestinationRules], destination_subsets::analyze),
    Analyzer::each(
        "virtualservice.JWTClaimRouteAnalyzer",
        &[Gateways, RequestAuthentications, Pods, Namespaces],
        jwt_claim_routes::analyze,
    ),
    Analyzer::each("deprecation.FieldAnalyzer", &[], deprecated::analyze_rules),
    Analyzer::whole(
        "virtualservice.ConflictingMeshGatewayHostsAnalyzer",
        OfGateways,
        &[VirtualServices],
        mesh_hosts::analyze,
    ),
    Analyzer::whole("rules that older ones shadow", OfGateways, &[VirtualServices, Gateways], shadowed_rules::analyze),
    // Gateways
    Analyzer::whole(
        "gateway.ConflictingGatewayAnalyzer",
        OfGateways,
        &[Gateways, Pods, Namespaces],
        gateway_conflicts::analyze,
    ),
    Analyzer::whole(
        "gateway.IngressGatewayPortAnalyzer",
        OfGateways,
        &[Gateways, Pods, Namespaces, Services],
        gateway_ports::analyze,
    ),
    Analyzer::whole(
        "gateway.SecretAnalyzer",
        OfGateways,
        &[Gateways, Pods, Namespaces, Secrets],
        gateway_secrets::analyze,
    ),
    Analyzer::whole("gateway.CertificateAnalyzer", OfMeshes, &[Gateways], shared_certificates::analyze),
    Analyzer::whole("hosts with several certificates", OfGateways, &[Gateways], certificate_conflicts::analyze),
    Analyzer::whole("hosts passed through and covered", OfGateways, &[Gateways], passthrough_cover::analyze),
    Analyzer::whole("reused connections", OfGateways, &[Gateways, Secrets], coalescing::analyze),
    // DestinationRules and ServiceEntries
    Analyzer::whole(
        "destinationrule.PodNotSelectedAnalyzer",
        OfGateways,
        &[DestinationRules, Services, ServiceEntries, Pods, Namespaces, Nodes],
        rule_targets::analyze,
    ),
    Analyzer::whole(
        "destinationrule.CaCertificateAnalyzer",
        OfMeshes,
        &[DestinationRules],
        server_verification::analyze,
    ),
    Analyzer::whole(
        "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
        OfGateways,
        &[ServiceEntries],
        entry_protocols::analyze,
    ),
    Analyzer::whole("serviceentry.ProtocolAddressesAnalyzer", OfMeshes, &[ServiceEntries], entry_addresses::analyze),
    // Policies
    Analyzer::whole(
        "authz.AuthorizationPoliciesAnalyzer",
        OfGateways,
        &[AuthorizationPolicies, Pods, Namespaces],
        policy_workloads::analyze,
    ),
    Analyzer::whole(
        "authn.BlockedCIDRsAnalyzer",
        OfMeshes,
        &[RequestAuthentications, Deployments],
        jwks_fetches::analyze,
    ),
    Analyzer::whole(
        "k8sgateway.SelectorAnalyzer",
        OfGateways,
        &[AuthorizationPolicies, RequestAuthentications, Telemetries, WasmPlugins, Pods, Namespaces],
        gateway_selectors::analyze,
    ),
    Analyzer::whole("telemetry.ProviderAnalyzer", OfGateways, &[Telemetries], telemetry_providers::analyze),
    Analyzer::whole("telemetry.LightstepAnalyzer", OfGateways, &[Telemetries], deprecated::analyze_tracing),
    Analyzer::whole(
        "telemetry.SelectorAnalyzer",
        OfGateways,
        &[Telemetries, Pods, Namespaces],
        telemetry_selectors::analyze,
    ),
    Analyzer::whole(
        "telemetry.DefaultSelectorAnalyzer",
        OfGateways,
        &[Telemetries],
        telemetry_selectors::analyze_defaults,
    ),
    Analyzer::whole("sidecar.SelectorAnalyzer", OfMeshes, &[Sidecars, Pods, Namespaces], sidecar_selectors::analyze),
    Analyzer::whole("envoyfilter.EnvoyPatchAnalyzer", OfMeshes, &[EnvoyFilters], envoy_filters::analyze),
    // All kinds
    Analyzer::whole("deprecation.FieldAnalyzer", OfGateways, &[Sidecars, Definitions], deprecated::analyze),
    Analyzer::whole(
        "conditions.ConditionAnalyzer",
        OfGateways,
        &[Services, ServiceEntries, AuthorizationPolicies, KubernetesGateways, HttpRoutes, GrpcRoutes],
        conditions::analyze,
    ),
    Analyzer::whole("service.PortNameAnalyzer", OfMeshes, &[Services], port_names::analyze),
    Analyzer::whole("k8sgateway.CRDVersionAnalyzer", OfMeshes, &[Definitions], gateway_api_versions::analyze),
    Analyzer::whole("deployment.ApplicationUIDAnalyzer", OfMeshes, &[Pods, Deployments], user_ids::analyze),
    Analyzer::whole(
        "maturity.AlphaAnalyzer",
        OfMeshes,
        &[Namespaces, Services, Pods, Deployments],
        alpha_annotations::analyze,
    ),
];
