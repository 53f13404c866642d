//! This machine: its cores, its clocks, what others use of it.

use std::fs;

use anyhow::Context;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// Where the measured gateways run.
pub const GATEWAY_CORE: usize = 0;
/// Where the load generator and the seller run.
pub const LOAD_CORE: usize = 1;

/// Binds the calling thread, and whatever it starts from now on, to one core.
///
/// # Errors
/// When there is no such core.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("core {core}: two cores are needed"))
}

/// The CPU time that a process has used, all its threads, nanoseconds; its children are not in it.
///
/// # Errors
/// When there is no such process.
pub fn cpu_nanos(process: u32) -> anyhow::Result<u64> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(i32::try_from(process)?))?;
    let time = clock_gettime(clock).with_context(|| format!("the CPU clock of process {process}"))?;
    Ok(u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?)
}

/// A process and all that it has started.
#[must_use]
pub fn family(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_ascii_whitespace().filter_map(|id| id.parse().ok()) {
            found.extend(family(child));
        }
    }
    found
}

/// The resident memory of a process, bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

/// The CPU time that everything on this machine has used, nanoseconds, in steps of a hundredth of a second.
///
/// # Errors
/// When the system does not tell.
pub fn busy_nanos() -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system, irq, softirq; neither idle nor waiting nor stolen.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|column| ticks.get(*column)).sum();
    Ok(busy * 10_000_000)
}

/// One line on the machine: processor, cores, memory, kernel.
#[must_use]
pub fn description() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let processor = after(&read("/proc/cpuinfo"), "model name");
    // All that are there: this program itself is pinned to one.
    let cores = read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
    let memory: u64 = after(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{processor}, {cores} cores, {} GiB, Linux {}", memory / (1 << 20), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_clock_of_a_process_is_finer_than_a_tick() {
        let own = std::process::id();
        let before = cpu_nanos(own).unwrap();
        let mut spun = 0u64;
        while cpu_nanos(own).unwrap() - before < 200_000 {
            spun += 1;
        }
        assert!(spun > 2, "a clock with steps of {} ns", 200_000 / spun.max(1));
        assert!(family(own).contains(&own));
        assert!(resident_bytes(own).unwrap() > 1 << 20);
    }
}
