//! A key ends everywhere: at once where it is revoked, and soon where that is only heard of.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::World;

/// Generous: what is promised is two seconds, on a machine that is not busy with tests.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn e4_a_revoked_key_ends_at_once_here_and_by_the_change_feed_elsewhere() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let make = async |name: &str| {
        let made = world.post("/api-keys", agent.key(), &json!({ "name": name })).await.expect(201);
        let text = |field: &str| made.body["data"][field].as_str().expect("text").to_string();
        (text("id"), text("api_key"))
    };
    let ((here, here_key), (there, there_key)) = (make("here").await, make("there").await);
    for key in [&here_key, &there_key] {
        world.get("/me", Some(key)).await.expect(200);
    }
    world.delete(&format!("/api-keys/{here}"), agent.key()).await.expect(200);
    world.get("/me", Some(&here_key)).await.refused(401, "UNAUTHENTICATED");

    // As another node does it: in the store, without a word to this node's caches. The test's clock stands still, so
    // that the cache's own time to live never ends: only the feed can tell.
    let store = world.actors().store();
    let revoked = store.api_key_revoke(agent.id, there.parse().expect("id"), world.now()).await;
    assert!(revoked.expect("revoked").is_some());
    let begun = Instant::now();
    while world.get("/me", Some(&there_key)).await.status != 401 {
        assert!(begun.elapsed() < PATIENCE, "the feed was not followed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.get("/me", agent.key()).await.expect(200);
}
