//! Start, stop, and the Unix socket that the proxy uses.

use std::time::Duration;

use control_api::Listen;
use storage::model::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::support::{World, config};

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_and_its_port_is_free_again() {
    let mut world = World::start().await;
    // A connection that is kept, and idle.
    world.get("/health", None).await.expect(200);
    let api = world.api.take().expect("running");
    let address = api.address().expect("TCP");
    tokio::time::timeout(Duration::from_secs(10), api.stop()).await.expect("stops");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_a_unix_socket_and_replaces_a_stale_one() {
    let world = World::start().await;
    let socket = world.directory.path().join("control.sock");
    std::fs::write(&socket, b"stale").expect("written");
    let api = control_api::start(
        config(world.directory.path(), ""),
        world.store.clone(),
        world.actors().clone(),
        Clock::scripted(world.millis.clone()),
        world.site.clone(),
        Listen::UnixSocket(socket.clone()),
    );
    let api = api.expect("started");
    assert_eq!(api.address(), None);
    let mut stream = UnixStream::connect(&socket).await.expect("connected");
    let request = b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.to_lowercase().contains("\r\nserver:"), "{answer}");
    api.stop().await;
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_an_error() {
    let world = World::start().await;
    let address = world.api.as_ref().and_then(control_api::ControlApi::address).expect("TCP");
    let started = control_api::start(
        config(world.directory.path(), ""),
        world.store.clone(),
        world.actors().clone(),
        Clock::system(),
        String::new(),
        Listen::Tcp(address),
    );
    assert!(matches!(started.err(), Some(control_api::ControlError::Listen(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_harms_nobody() {
    let world = World::start().await;
    let address = world.api.as_ref().and_then(control_api::ControlApi::address).expect("TCP");
    for bytes in
        [&b"\x16\x03\x01\x00\xff"[..], b"GET / HTTP/9\r\n\r\n", b"\0\0\0", b"POST /api/v1/register HTTP/1.1\r\n"]
    {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
    }
    world.get("/health", None).await.expect(200);
}
