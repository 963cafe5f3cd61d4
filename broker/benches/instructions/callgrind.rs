//! Runs the cases under callgrind, each in a process of its own, and reads what it counted.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::baseline::Baseline;
use crate::cases::{CASES, Case};

/// The function between whose entry and return is counted; its name is in the program's symbols.
#[inline(never)]
pub fn counted_section(work: &mut dyn FnMut()) {
    work();
    // Keeps the call above from becoming a jump, which would look like the end of this function.
    std::hint::black_box(0_u8);
}

/// glibc picks its string functions by the processor's features: these are told to be absent, so that the same ones
/// run everywhere. Names that a glibc does not know are passed over.
const GLIBC_TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX2_Usable,-AVX,-AVX_Usable,-ERMS,-FSRM,-EVEX,\
     -AVX_Fast_Unaligned_Load,-BMI2,-LZCNT,-MOVBE,-RTM,-SSE4_2,-SSE4_1";

/// Instructions of one operation of each case.
pub fn measure_all() -> Result<Baseline, String> {
    let directory = std::env::temp_dir().join(format!("instructions-{}", std::process::id()));
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let instructions = count_all(&directory);
    // Best effort: it lies in the directory for temporary files.
    let _ = std::fs::remove_dir_all(&directory);
    Ok(Baseline {
        rustc: rustc_version()?,
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        instructions: instructions?.into_iter().collect(),
    })
}

/// As many at a time as there are processors: they only count, so they cannot disturb each other.
fn count_all(directory: &Path) -> Result<Vec<(String, u64)>, String> {
    let next = AtomicUsize::new(0);
    let counted = Mutex::new(Vec::new());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                let count = count(case, directory).map(|total| {
                    let each = total.div_ceil(case.operations);
                    (case.name.to_owned(), each)
                });
                if let Ok(mut counted) = counted.lock() {
                    counted.push(count);
                }
            }
        };
        for _ in 0..processors {
            scope.spawn(work);
        }
    });
    let counted = counted.into_inner().map_err(|error| error.to_string())?;
    counted.into_iter().collect()
}

fn count(case: &Case, directory: &Path) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let file = directory.join(case.name);
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg("--quiet")
        .arg("--toggle-collect=*counted_section*")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["run", case.name]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command
        .env_clear()
        .env("PATH", path)
        .env("GLIBC_TUNABLES", GLIBC_TUNABLES);
    let output = command.output().map_err(|error| {
        format!("valgrind cannot be started ({error}); Debian's package is called valgrind")
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} failed under valgrind: {said}", case.name));
    }
    let profile = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let totals = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals:"));
    let total = totals.and_then(|total| total.trim().parse::<u64>().ok());
    total
        .filter(|total| *total > 0)
        .ok_or_else(|| format!("callgrind counted nothing for {}", case.name))
}

fn rustc_version() -> Result<String, String> {
    let output = Command::new("rustc")
        .arg("--version")
        .output()
        .map_err(|error| format!("rustc cannot be started: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
