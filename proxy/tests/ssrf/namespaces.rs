//! Two network namespaces of the test's own: the client's, and one behind it that is everywhere else.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    sync::mpsc,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{Dialled, OURS, World, tls::Authority};

const PORTS: [u16; 11] = [21, 22, 25, 80, 443, 1023, 1024, 6379, 8080, 8443, 9200];

/// Runs a test in a namespace whose every way out leads to another one, which answers on all addresses and tells.
pub fn in_namespaces<T: Future<Output = ()>>(test: impl FnOnce(World) -> T + Send + 'static) {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: this machine permits no network namespaces ({error})");
            return;
        }
        let dialled = Dialled::default();
        let authority = Authority::new();
        let acceptor = authority.acceptor(&["*.example.org", "*.example.net", "*.example.com", "*.internal"]);
        let (go, far) = far_namespace(acceptor.clone(), dialled.clone());
        let commands = [
            "ip link set lo up".to_string(),
            format!("ip addr add {OURS}/32 dev lo"),
            "ip link add near type veth peer name far".to_string(),
            format!("ip link set far netns {far}"),
            "ip addr add 100.64.255.1/30 dev near".to_string(),
            "ip -6 addr add fd77::1/64 dev near nodad".to_string(),
            "ip link set near up".to_string(),
            "ip route add default via 100.64.255.2".to_string(),
            "ip -6 route add default via fd77::2".to_string(),
        ];
        if !commands.iter().all(|command| command_runs(command)) {
            eprintln!("SKIPPED: this machine permits no virtual links");
            return;
        }
        go.send(()).expect("the far side waits");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            // What leads back to this machine is a trap too.
            listen_everywhere(acceptor, dialled.clone());
            let world = World::new(&authority, dialled);
            wait_for_the_far_side(&world).await;
            test(world).await;
        });
        drop(go);
    };
    std::thread::spawn(run).join().expect("the test holds");
}

/// Where everything is: a thread in a namespace of its own. Returns its number and the word that it waits for.
fn far_namespace(acceptor: TlsAcceptor, dialled: Dialled) -> (mpsc::Sender<()>, i32) {
    let (tell, told) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a second namespace");
        tell.send(nix::unistd::gettid().as_raw()).expect("told");
        if may_go.recv().is_err() {
            return;
        }
        for command in [
            "ip link set lo up",
            "ip addr add 100.64.255.2/30 dev far",
            "ip -6 addr add fd77::2/64 dev far nodad",
            "ip link set far up",
            "ip route add local default dev lo table main",
            "ip -6 route add local default dev lo table main",
        ] {
            assert!(command_runs(command), "{command}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            listen_everywhere(acceptor, dialled);
            // Until the near side is done with its end.
            let _ = tokio::task::spawn_blocking(move || may_go.recv()).await;
        });
    });
    (go, told.recv().expect("a thread"))
}

fn command_runs(command: &str) -> bool {
    let mut words = command.split(' ');
    let status = Command::new(words.next().expect("a program")).args(words).status();
    status.is_ok_and(|status| status.success())
}

/// Listens on all addresses of this namespace, of both families.
fn listen_everywhere(acceptor: TlsAcceptor, dialled: Dialled) {
    for port in PORTS {
        let four = TcpSocket::new_v4().expect("a socket");
        four.set_reuseaddr(true).expect("set");
        four.bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).expect("bound");
        let six = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).expect("a socket");
        six.set_only_v6(true).expect("set");
        six.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into()).expect("bound");
        six.listen(64).expect("listening");
        six.set_nonblocking(true).expect("set");
        let six = TcpListener::from_std(six.into()).expect("a listener");
        for listener in [four.listen(64).expect("listening"), six] {
            let (acceptor, dialled) = (acceptor.clone(), dialled.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, acceptor.clone(), dialled.clone()));
                }
            });
        }
    }
}

/// Notes who was dialled and by which names, then answers 200, or leads inside.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, dialled: Dialled) -> Option<()> {
    let address = stream.local_addr().ok()?;
    let place = {
        let mut dialled = dialled.lock().expect("lock");
        dialled.push((address, String::new()));
        dialled.len() - 1
    };
    let mut stream = acceptor.accept(stream).await.ok()?;
    let name = stream.get_ref().1.server_name().unwrap_or_default().to_string();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n{}") {
        if stream.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8_lossy(&seen).to_string();
    let host = text.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default().to_string();
    if let Some((_, said)) = dialled.lock().expect("lock").get_mut(place) {
        *said = format!("{name} {host}");
    }
    let answer: &[u8] = if text.starts_with("POST /inside") {
        b"HTTP/1.1 302 Found\r\nLocation: https://169.254.169.254/latest\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    } else {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    };
    stream.write_all(answer).await.ok()?;
    stream.shutdown().await.ok()
}

async fn wait_for_the_far_side(world: &World) {
    for address in ["1.1.1.1:443", "[2606:4700::1111]:443"] {
        for _ in 0..500 {
            if TcpStream::connect(address).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for _ in 0..500 {
        if world.dialled.lock().expect("lock").len() == 2 {
            world.seen();
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the far side does not answer");
}
