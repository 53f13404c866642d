//! What operators see of money whose rail does not say whether it moved.

use std::process::Command;

use super::*;

impl Scene {
    /// `crochet admin stuck --json`, off this test's runtime.
    async fn stuck(&self) -> Vec<Value> {
        let data = self.gateway.data();
        let run = move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_crochet"));
            command.args(["admin", "stuck", "--json"]).env("CROCHET__STORAGE__PATH", data);
            command.output().expect("crochet runs")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("ran");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_facilitator_is_silent_is_listed_until_it_is_known() {
    let scene = Scene::start().await;
    let (quoted, _) = scene.quote(BODY).await;
    let signature = scene.sign(BODY).await;
    assert_eq!(scene.stuck().await, [Value::Null; 0], "a quote that nobody signed for is no money");
    scene.steer(json!({"faults": {"/settle": {"drop": true}}})).await;
    scene.pay(BODY, &signature).await.expect(202);
    let stuck = scene.stuck().await;
    assert_eq!(stuck.len(), 1, "{stuck:?}");
    let row = &stuck[0];
    assert_eq!((&row["payment"], &row["waits_for"]), (&json!(quoted.payment_id()), &json!("rail")));
    assert_eq!(row["amount_micros"], 10_000);
    assert!(row["next"].as_str().is_some_and(|next| next.contains("up on the chain")), "{row}");
    scene.steer(json!({})).await;
    scene.pay(BODY, &signature).await.expect(200);
    assert_eq!(scene.stuck().await, [Value::Null; 0]);
}
