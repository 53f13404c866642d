//! nginx and HAProxy on free ports, each with a folder of its own, as lenient as they can be told to be: what they pass
//! is what counts.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

/// A front that ends with this value.
pub struct Front {
    pub addresses: [SocketAddr; 2],
    child: Child,
    _folder: TempDir,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn nginx(gateway: SocketAddr) -> Option<Front> {
    // Debian keeps it where only root looks.
    let program = ["nginx", "/usr/sbin/nginx"].into_iter().find(|program| is_there(program, "-v"));
    let program = program.or_else(|| skipped("nginx"))?;
    let configure = |folder: &Path, [held, streamed]: [SocketAddr; 2]| {
        let dir = folder.display();
        let server = |listen: SocketAddr, buffering: &str| {
            format!(
                "server {{ listen {listen}; ignore_invalid_headers off; underscores_in_headers on;
                   location / {{ proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection '';
                     proxy_set_header Host $host; proxy_ignore_client_abort on; proxy_next_upstream off;
                     proxy_request_buffering {buffering}; }} }}"
            )
        };
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log {dir}/log;
             events {{ worker_connections 256; }}
             http {{ access_log off; client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
               uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e; client_body_timeout 10s; client_header_timeout 10s;
               upstream gateway {{ server {gateway}; keepalive 1; }}
               {}
               {} }}",
            server(held, "on"),
            server(streamed, "off"),
        );
        std::fs::write(folder.join("conf"), text).expect("written");
        let mut command = Command::new(program);
        command.arg("-p").arg(folder).arg("-e").arg(folder.join("log")).arg("-c").arg(folder.join("conf"));
        command
    };
    Some(start(configure).await)
}

pub async fn haproxy(gateway: SocketAddr) -> Option<Front> {
    let program = ["haproxy", "/usr/sbin/haproxy"].into_iter().find(|program| is_there(program, "-v"));
    let program = program.or_else(|| skipped("haproxy"))?;
    let configure = |folder: &Path, [strict, lenient]: [SocketAddr; 2]| {
        let text = format!(
            "global
               maxconn 200
             defaults
               mode http
               timeout connect 10s
               timeout client 4s
               timeout server 4s
               timeout http-request 4s
             frontend strict
               bind {strict}
               default_backend gateway
             frontend lenient
               bind {lenient}
               option accept-invalid-http-request
               default_backend gateway
             backend gateway
               http-reuse always
               server one {gateway}
"
        );
        std::fs::write(folder.join("conf"), text).expect("written");
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(folder.join("conf"));
        command
    };
    Some(start(configure).await)
}

fn is_there(program: &str, version: &str) -> bool {
    let asked = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

fn skipped(what: &str) -> Option<&'static str> {
    eprintln!("SKIPPED: no {what} on this machine; ./dev test installs it where it may");
    None
}

async fn start(configure: impl Fn(&Path, [SocketAddr; 2]) -> Command) -> Front {
    // A port that is free now may be taken before the front gets it; then it ends, and is started on others.
    for _ in 0..5 {
        let folder = TempDir::new().expect("a folder");
        let addresses =
            [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port"));
        let mut command = configure(folder.path(), addresses);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        let mut front = Front { addresses, child, _folder: folder };
        for _ in 0..1000 {
            if matches!(front.child.try_wait(), Ok(Some(_))) {
                break;
            }
            let mut all = true;
            for address in front.addresses {
                all &= tokio::net::TcpStream::connect(address).await.is_ok();
            }
            if all {
                return front;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("the front did not start");
}
