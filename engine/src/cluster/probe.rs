//! Whether an executor answers. A process that is frozen still has its connections taken by the kernel, so it is asked for
//! something: to remove what is left of a plan that there never was.

use std::time::Duration;

use ballista_core::serde::protobuf::RemoveJobDataParams;
use ballista_core::serde::protobuf::executor_grpc_client::ExecutorGrpcClient;
use ballista_core::serde::scheduler::ExecutorMetadata;
use tonic::transport::Endpoint;

/// Asks it, and waits no longer than this.
pub(super) async fn answers(executor: &ExecutorMetadata, within: Duration) -> bool {
    let ask = async {
        let endpoint = Endpoint::from_shared(format!("http://{}:{}", executor.host, executor.grpc_port)).ok()?;
        let mut client = ExecutorGrpcClient::new(endpoint.connect().await.ok()?);
        let nothing = RemoveJobDataParams { job_id: "gristmill-probe".to_string(), remove_stage_ids: Vec::new() };
        client.remove_job_data(nothing).await.ok()
    };
    matches!(tokio::time::timeout(within, ask).await, Ok(Some(_)))
}
