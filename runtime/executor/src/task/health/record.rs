//! What the probes of a task have found, and what follows from it.

use std::collections::VecDeque;

use container::shim::{HealthCheck, ProbeOutcome, ProbeReport, beginning};
use fairlead_api::v1;
use serde::{Deserialize, Serialize};

/// How many results are kept; Docker's number.
const KEPT: usize = 5;

/// Whether a task is well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// No probe has succeeded yet.
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

/// All that is known of a task's health. What is decided by are times since the machine started, in
/// nanoseconds: the clock on the wall may be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub state: State,
    /// Failures in a row that count.
    pub streak: u32,
    /// When the task was started.
    started: u64,
    /// When the last probe ended; 0: there was none.
    ended: u64,
    /// When the last probe began whose failure counted before any has succeeded; 0: none did.
    counted: u64,
    /// The oldest first.
    log: VecDeque<Outcome>,
}

/// One probe. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Outcome {
    start: u64,
    end: u64,
    code: i32,
    output: String,
}

impl Health {
    /// Nothing is known yet of a task that was started so long after the machine.
    pub fn of_task_started(started: u64) -> Self {
        Self {
            started,
            ..Self::default()
        }
    }

    /// Takes in a probe that began and ended at these times: since the epoch, and since the machine
    /// started.
    pub fn note(
        &mut self,
        check: &HealthCheck,
        report: ProbeReport,
        (start, end): (u64, u64),
        (began, ended): (u64, u64),
    ) {
        self.ended = ended;
        let (code, output) = match report.outcome {
            // Nothing is known; why is shown where there is a reason.
            ProbeOutcome::NoTask => {
                if !report.output.is_empty() {
                    self.keep(Outcome {
                        start,
                        end,
                        code: -1,
                        output: report.output,
                    });
                }
                return;
            }
            ProbeOutcome::Exited(code) | ProbeOutcome::NotRun(code) => (code, report.output),
            ProbeOutcome::TimedOut => {
                let limit = std::time::Duration::from_nanos(check.timeout_nanos);
                let text = format!("the probe took more than {limit:?}: {}", report.output);
                (-1, text.trim_end_matches([':', ' ']).to_owned())
            }
        };
        if code == 0 {
            (self.state, self.streak) = (State::Healthy, 0);
        } else if self.counts(check, began) {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= check.retries {
                self.state = State::Unhealthy;
            }
        }
        self.keep(Outcome {
            start,
            end,
            code,
            output,
        });
    }

    fn keep(&mut self, outcome: Outcome) {
        if self.log.len() == KEPT {
            self.log.pop_front();
        }
        self.log.push_back(outcome);
    }

    /// Before a probe has succeeded, the start period protects the task, and probes come more often than
    /// the interval: to find out soon that it is well, not to give it less time.
    fn counts(&mut self, check: &HealthCheck, began: u64) -> bool {
        if self.state != State::Starting {
            return true;
        }
        let before = if self.counted == 0 {
            self.started
        } else {
            self.counted
        };
        let counts = began.saturating_sub(self.started) >= check.start_period_nanos
            && began.saturating_sub(before) >= check.interval_nanos;
        if counts {
            self.counted = began;
        }
        counts
    }

    /// How long after the end of a probe the next is due.
    pub fn pause(&self, check: &HealthCheck) -> std::time::Duration {
        std::time::Duration::from_nanos(match self.state {
            State::Starting => check.interval_nanos.min(check.start_interval_nanos),
            State::Healthy | State::Unhealthy => check.interval_nanos,
        })
    }

    /// When the last probe ended, since the machine started; 0: there was none.
    pub fn last_end(&self) -> u64 {
        self.ended
    }

    /// Why the task is unhealthy, in one line.
    pub fn reason(&self) -> String {
        /// The rest is in the log.
        const MAX: usize = 1024;
        let mut text = format!(
            "unhealthy container: {} failed probes in a row",
            self.streak
        );
        if let Some(last) = self.log.back() {
            if last.code >= 0 {
                text.push_str(&format!(", the last with exit code {}", last.code));
            }
            let said = last.output.trim();
            if !said.is_empty() {
                text.push_str(": ");
                text.push_str(beginning(said, MAX));
            }
        }
        text
    }

    /// For the agent.
    pub fn to_proto(&self) -> v1::TaskHealth {
        let result = |outcome: &Outcome| v1::ProbeResult {
            start: outcome.start,
            end: outcome.end,
            exit_code: outcome.code,
            output: outcome.output.clone(),
        };
        v1::TaskHealth {
            state: self.state.number() as i32,
            failing_streak: self.streak,
            log: self.log.iter().map(result).collect(),
        }
    }
}

impl State {
    /// As the contract numbers it.
    pub fn number(self) -> v1::HealthState {
        match self {
            Self::Starting => v1::HealthState::Starting,
            Self::Healthy => v1::HealthState::Healthy,
            Self::Unhealthy => v1::HealthState::Unhealthy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// When the task was started.
    const BEGIN: u64 = 1_000_000 * SECOND;

    fn check() -> HealthCheck {
        HealthCheck {
            args: vec!["x".into()],
            interval_nanos: 10 * SECOND,
            timeout_nanos: SECOND,
            retries: 2,
            start_period_nanos: 0,
            start_interval_nanos: 2 * SECOND,
        }
    }

    /// A probe some seconds after the start.
    fn probe(health: &mut Health, check: &HealthCheck, seconds: u64, outcome: ProbeOutcome) {
        let report = ProbeReport {
            outcome,
            output: format!("at {seconds}"),
        };
        let (wall, up) = (seconds * SECOND, BEGIN + seconds * SECOND);
        health.note(check, report, (wall, wall + 1), (up, up + 1));
    }

    use ProbeOutcome::{Exited, NoTask, NotRun, TimedOut};

    #[test]
    fn as_many_failures_in_a_row_as_retries_make_it_unhealthy() {
        let (check, mut health) = (check(), Health::of_task_started(BEGIN));
        probe(&mut health, &check, 0, Exited(0));
        assert_eq!(health.state, State::Healthy);
        probe(&mut health, &check, 10, Exited(1));
        assert_eq!((health.state, health.streak), (State::Healthy, 1));
        probe(&mut health, &check, 20, Exited(0));
        assert_eq!((health.state, health.streak), (State::Healthy, 0));
        probe(&mut health, &check, 30, TimedOut);
        probe(&mut health, &check, 31, NoTask);
        probe(&mut health, &check, 40, NotRun(127));
        assert_eq!((health.state, health.streak), (State::Unhealthy, 2));
        let reason = health.reason();
        assert_eq!(
            reason,
            "unhealthy container: 2 failed probes in a row, the last with exit code 127: at 40"
        );
    }

    #[test]
    fn the_start_period_protects_until_the_first_success() {
        let check = HealthCheck {
            start_period_nanos: 60 * SECOND,
            ..check()
        };
        let mut health = Health::of_task_started(BEGIN);
        for seconds in (0..60).step_by(2) {
            probe(&mut health, &check, seconds, Exited(1));
        }
        assert_eq!((health.state, health.streak), (State::Starting, 0));
        let mut early = health.clone();
        probe(&mut early, &check, 59, Exited(0));
        probe(&mut early, &check, 59, Exited(1));
        assert_eq!(early.streak, 1, "protected no more");
        probe(&mut health, &check, 60, Exited(1));
        probe(&mut health, &check, 62, Exited(1));
        assert_eq!((health.state, health.streak), (State::Starting, 1));
        probe(&mut health, &check, 70, Exited(1));
        assert_eq!(health.state, State::Unhealthy);
    }

    #[test]
    fn probes_that_come_sooner_than_the_interval_do_not_take_time_away() {
        let (check, mut health) = (check(), Health::of_task_started(BEGIN));
        assert_eq!(health.pause(&check).as_secs(), 2);
        for seconds in (0..20).step_by(2) {
            probe(&mut health, &check, seconds, Exited(1));
            assert_eq!(health.state, State::Starting, "at {seconds}");
        }
        probe(&mut health, &check, 20, Exited(1));
        assert_eq!(health.state, State::Unhealthy);
    }

    #[test]
    fn the_last_five_are_kept_and_survive() {
        let (check, mut health) = (check(), Health::of_task_started(BEGIN));
        for seconds in 0..9 {
            probe(&mut health, &check, seconds, Exited(0));
        }
        probe(&mut health, &check, 9, TimedOut);
        let proto = health.to_proto();
        let said: Vec<_> = proto.log.iter().map(|r| r.output.as_str()).collect();
        assert_eq!(
            said,
            [
                "at 5",
                "at 6",
                "at 7",
                "at 8",
                "the probe took more than 1s: at 9"
            ]
        );
        assert_eq!(proto.log[4].exit_code, -1);
        assert_eq!(health.last_end(), BEGIN + 9 * SECOND + 1);
        assert_eq!(health.pause(&check).as_secs(), 10);
        let text = serde_json::to_string(&health).expect("JSON");
        assert_eq!(serde_json::from_str::<Health>(&text).expect("JSON"), health);
    }

    #[test]
    fn a_probe_that_could_not_be_run_is_shown_and_does_not_count() {
        let (check, mut health) = (check(), Health::of_task_started(BEGIN));
        for seconds in [30, 60, 90] {
            probe(&mut health, &check, seconds, NoTask);
        }
        assert_eq!((health.state, health.streak), (State::Starting, 0));
        let proto = health.to_proto();
        assert_eq!(
            (proto.log[2].exit_code, proto.log[2].output.as_str()),
            (-1, "at 90")
        );
    }

    #[test]
    fn the_reason_is_bounded() {
        let (check, mut health) = (check(), Health::of_task_started(BEGIN));
        let report = ProbeReport {
            outcome: Exited(1),
            output: "ä".repeat(2048),
        };
        health.note(&check, report, (BEGIN, BEGIN), (BEGIN, BEGIN));
        assert!(health.reason().len() < 1200, "{}", health.reason().len());
    }
}
