//! What is looked up when somebody looks, instead of being counted on the way: the state of circuits and store, the
//! busiest listings, the process. Written as text beside the recorder's own, so that a listing that is no longer among
//! the busiest leaves no series behind.

use std::{fmt::Write as _, fs};

use actors::Actors;

use super::catalogue;

/// Clock ticks a second in `/proc`: the same on every Linux.
const TICKS: u64 = 100;

/// Appends these metrics to a page.
pub(super) fn append(page: &mut String, actors: &Actors, is_ready: bool, busiest: usize) {
    let seen = actors.observe(busiest);
    let mut gauge = |name: &str, series: &[(String, u64)]| write_metric(page, name, series);
    let state = |name: &str| format!("{{state=\"{name}\"}}");
    gauge(
        "crochet_circuit_state",
        &[
            (state("closed"), seen.circuits_closed),
            (state("open"), seen.circuits_open),
            (state("half_open"), seen.circuits_half_open),
        ],
    );
    gauge("crochet_slots_waiting", &[(String::new(), seen.waiting)]);
    let backend = format!("{{backend=\"{}\"}}", actors.store().backend());
    gauge("crochet_store_up", &[(backend, u64::from(actors.store().check().is_ok()))]);
    gauge("crochet_ready", &[(String::new(), u64::from(is_ready))]);
    let listing = |id| format!("{{listing=\"{id}\"}}");
    let calls: Vec<_> = seen.busiest.iter().map(|busy| (listing(busy.listing), busy.calls)).collect();
    gauge("crochet_listing_calls_total", &calls);
    let running: Vec<_> = seen.busiest.iter().map(|busy| (listing(busy.listing), u64::from(busy.running))).collect();
    gauge("crochet_listing_running", &running);
    append_process(page);
}

/// One metric with all its series; without a series nothing is written.
fn write_metric(page: &mut String, name: &str, series: &[(String, u64)]) {
    if series.is_empty() {
        return;
    }
    head(page, name);
    for (labels, value) in series {
        let _ = writeln!(page, "{name}{labels} {value}");
    }
}

fn head(page: &mut String, name: &str) {
    if let Some(metric) = catalogue::find(name) {
        let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} {}", metric.meaning, metric.kind.name());
    }
}

/// The usual names for what a process uses, from `/proc`; what cannot be read is left out.
fn append_process(page: &mut String) {
    let number = |name: &str, value: Option<u64>, page: &mut String| {
        if let Some(value) = value {
            write_metric(page, name, &[(String::new(), value)]);
        }
    };
    if let Some(ticks) = stat_field(14).zip(stat_field(15)).map(|(user, system)| user + system) {
        head(page, "process_cpu_seconds_total");
        let _ = writeln!(page, "process_cpu_seconds_total {}.{:02}", ticks / TICKS, ticks % TICKS);
    }
    number("process_resident_memory_bytes", status_kib("VmRSS:").map(|kib| kib << 10), page);
    number("process_virtual_memory_bytes", status_kib("VmSize:").map(|kib| kib << 10), page);
    number("process_threads", stat_field(20), page);
    number("process_open_fds", fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as u64), page);
    number("process_max_fds", max_files(), page);
    let boot = line_of("/proc/stat", "btime ").and_then(|rest| rest.trim().parse::<u64>().ok());
    let started = boot.zip(stat_field(22)).map(|(boot, ticks)| boot + ticks / TICKS);
    number("process_start_time_seconds", started, page);
}

/// A field of `/proc/self/stat`, counted from 1 as its manual does. The second, a name, may hold anything.
fn stat_field(number: usize) -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(number.checked_sub(3)?)?.parse().ok()
}

fn status_kib(name: &str) -> Option<u64> {
    line_of("/proc/self/status", name)?.trim().trim_end_matches(" kB").parse().ok()
}

fn max_files() -> Option<u64> {
    line_of("/proc/self/limits", "Max open files")?.split_whitespace().next()?.parse().ok()
}

/// What follows `start` on the line that begins with it.
fn line_of(path: &str, start: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(start)).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let mut page = String::new();
        append_process(&mut page);
        let value = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
            let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|text| text.parse::<f64>().ok());
            value.unwrap_or_else(|| panic!("{name} is not in\n{page}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
        // Since 2020, and not in the future of this machine.
        assert!(value("process_start_time_seconds") > 1.577e9);
    }
}
