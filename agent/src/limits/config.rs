//! The `limits` section of the agent's config: what the agent may take of its own host.

use serde::Deserialize;

use crate::units::Bytes;

/// Less would be over at every start; more than some cores is no limit.
const CPU_PERCENT: std::ops::RangeInclusive<f64> = 0.5..=1_600.0;
/// The program alone takes a few MiB.
const MEMORY_MIN: Bytes = Bytes(16 << 20);

/// The section as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimitsConfig {
    /// Whether the agent limits itself.
    pub enabled: bool,
    /// Processor time of the agent and its child processes, in percent of one core.
    pub cpu: String,
    /// Resident memory of the agent.
    pub memory: Bytes,
}

/// The section, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitsConfig {
    /// Share of one core, 0.05 for 5 %.
    pub cpu_share: f64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
}

/// What is wrong with the section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckLimitsError {
    /// The share.
    #[error("limits.cpu: `{0}` is not a share of one core; write 0.5% to 1600%, for example 10%")]
    Cpu(String),
    /// The memory.
    #[error("limits.memory: {0} is too small; allowed are 16MiB and more")]
    Memory(Bytes),
}

impl Default for RawLimitsConfig {
    fn default() -> RawLimitsConfig {
        RawLimitsConfig { enabled: true, cpu: "10%".to_owned(), memory: Bytes(64 << 20) }
    }
}

impl RawLimitsConfig {
    /// Checks the section; `None` where the agent does not limit itself.
    ///
    /// # Errors
    /// A value is not allowed.
    pub fn check(self) -> Result<Option<LimitsConfig>, CheckLimitsError> {
        let percent = self.cpu.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let Some(percent) = percent.filter(|percent| CPU_PERCENT.contains(percent)) else {
            return Err(CheckLimitsError::Cpu(self.cpu));
        };
        if self.memory < MEMORY_MIN {
            return Err(CheckLimitsError::Memory(self.memory));
        }
        Ok(self.enabled.then_some(LimitsConfig { cpu_share: percent / 100.0, memory_bytes: self.memory.0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_wrong_ones_named() {
        let check = |yaml: &str| serde_saphyr::from_str::<RawLimitsConfig>(yaml).unwrap().check();
        let default = check("{}").unwrap().unwrap();
        assert_eq!((default.cpu_share, default.memory_bytes), (0.1, 64 << 20));
        assert_eq!(check("cpu: 2.5%").unwrap().unwrap().cpu_share, 0.025);
        assert_eq!(check("enabled: false").unwrap(), None);
        for cpu in ["5", "0%", "-1%", "many%", "NaN%", "1601%"] {
            let told = check(&format!("cpu: '{cpu}'")).unwrap_err().to_string();
            assert!(told.contains(&format!("`{cpu}` is not a share of one core")), "{told}");
        }
        assert!(check("memory: 1MiB").unwrap_err().to_string().contains("1MiB is too small"));
    }
}
