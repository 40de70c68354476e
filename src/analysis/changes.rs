//! Which kinds have other objects than in the last run?

use std::sync::Arc;

use crate::resource::ResourceSet;

macro_rules! inputs {
    ($($input:ident $list:ident),* $(,)?) => {
        /// A list of objects that an analyzer looks at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Input {
            $($input,)*
        }

        /// The lists that differ; unchanged objects are the very same ones.
        pub(super) fn changed(now: &ResourceSet, before: &ResourceSet) -> Vec<Input> {
            let mut changed = Vec::new();
            $(if !is_same(&now.$list, &before.$list) {
                changed.push(Input::$input);
            })*
            changed
        }
    };
}

inputs!(
    Gateways gateways,
    VirtualServices virtual_services,
    DestinationRules destination_rules,
    ServiceEntries service_entries,
    Sidecars sidecars,
    EnvoyFilters envoy_filters,
    RequestAuthentications request_authentications,
    AuthorizationPolicies authorization_policies,
    Telemetries telemetries,
    WasmPlugins wasm_plugins,
    Services services,
    Secrets secrets,
    Namespaces namespaces,
    Pods pods,
    Deployments deployments,
    Nodes nodes,
    Definitions definitions,
    KubernetesGateways kubernetes_gateways,
    HttpRoutes http_routes,
    GrpcRoutes grpc_routes,
);

fn is_same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}
