//! gRPC through the gateway: calls, streams, trailers, and failures as gRPC statuses.

use tonic::Code;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Shown;

use crate::support::backend::{self, Backend};
use crate::support::gateway::TestGateway;
use crate::support::grpc::{HealthService, health_client};
use crate::support::manifests::{all_to, http_gateway, route, service};

fn asked(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_streams_and_failures_arrive() {
    let health = HealthService::start();
    let plain = Backend::http1("plain");
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("health.test", health.address, "GRPC"),
            service("dead.test", backend::nobody(), "GRPC"),
            service("plain.test", plain.address, "HTTP"),
            route("health", "health.test", &all_to("health.test")),
            route("dead", "dead.test", &all_to("dead.test")),
        ]
        .concat(),
    );
    health.reporter.set_service_status("shop", ServingStatus::Serving).await;
    let mut client = health_client(gateway.http(), "health.test").await;
    let answer = client.check(asked("shop")).await.expect("the call arrives").into_inner();
    assert_eq!(answer.status(), Shown::Serving);
    let unknown = client.check(asked("nowhere")).await.expect_err("the service says no in its trailers");
    assert_eq!(unknown.code(), Code::NotFound);

    let mut stream = client.watch(asked("shop")).await.expect("the stream opens").into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().status(), Shown::Serving);
    health.reporter.set_service_status("shop", ServingStatus::NotServing).await;
    assert_eq!(stream.message().await.unwrap().unwrap().status(), Shown::NotServing);

    for (host, code) in [("nobody.test", Code::Unimplemented), ("dead.test", Code::Unavailable)] {
        let failure = health_client(gateway.http(), host).await.check(asked("shop")).await.expect_err(host);
        assert_eq!(failure.code(), code, "{host}: {failure:?}");
    }
    let counted = |labels: &str| gateway.metric("istio_requests_total", labels);
    assert_eq!(counted(r#"request_protocol="grpc",response_code="200",grpc_response_status="0""#), 1.0);
    assert_eq!(counted(r#"request_protocol="grpc",response_code="200",grpc_response_status="5""#), 1.0);
}
