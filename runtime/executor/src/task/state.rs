//! The next step of a task: SwarmKit's rules (agent/exec/controller.go, `Do`), as one function of
//! what is wanted and what is.

use fairlead_api::v1::TaskState;

/// What the agent wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Only grows.
    pub desired: TaskState,
    /// It is no longer assigned: nothing of it may stay.
    pub removing: bool,
}

/// What is to be done next. One step at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The state is reached: say so.
    Enter(TaskState, &'static str),
    /// Make everything, so that starting is immediate; then READY.
    Prepare,
    /// Let it run; then RUNNING.
    Start,
    /// Wait until it ends; then COMPLETE or FAILED.
    Wait,
    /// End it; then SHUTDOWN.
    Stop,
    /// It has ended: take away what only a running task needs.
    CleanUp,
    /// It has left the assignment: take away the rest.
    Remove,
    /// Nothing, until something else is wanted.
    Park,
}

/// Decides. `traces`: anything of the task may be in the kernel or on disk, beside its log.
#[must_use]
pub fn next(state: TaskState, want: Want, traces: bool) -> Step {
    use TaskState as S;
    if state >= S::Complete {
        // Ended, in whatever way.
        return match (traces, want.removing) {
            (true, _) => Step::CleanUp,
            (false, true) => Step::Remove,
            (false, false) => Step::Park,
        };
    }
    if want.removing || want.desired >= S::Shutdown {
        return Step::Stop;
    }
    if state > want.desired {
        return Step::Park;
    }
    match state {
        S::Preparing => return Step::Prepare,
        S::Starting => return Step::Start,
        S::Running => return Step::Wait,
        _ => {}
    }
    if state >= want.desired {
        return Step::Park;
    }
    match state {
        S::Accepted => Step::Enter(S::Preparing, "preparing"),
        S::Ready => Step::Enter(S::Starting, "starting"),
        _ => Step::Enter(S::Accepted, "accepted"),
    }
}

/// Where an error leads that trying again does not mend.
#[must_use]
pub fn after_error(state: TaskState) -> TaskState {
    if state < TaskState::Starting {
        TaskState::Rejected
    } else {
        TaskState::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TaskState as S;

    fn want(desired: S) -> Want {
        Want {
            desired,
            removing: false,
        }
    }

    /// Walks as the actor does when every step succeeds; what it passes.
    fn walk(desired: S) -> Vec<S> {
        let (mut state, mut passed, mut traces) = (S::Assigned, Vec::new(), false);
        loop {
            state = match next(state, want(desired), traces) {
                Step::Enter(state, _) => state,
                Step::Prepare => {
                    traces = true;
                    S::Ready
                }
                Step::Start => S::Running,
                Step::Wait => S::Complete,
                Step::Stop => S::Shutdown,
                Step::CleanUp => {
                    traces = false;
                    continue;
                }
                Step::Remove | Step::Park => return passed,
            };
            passed.push(state);
        }
    }

    #[test]
    fn a_task_walks_one_state_at_a_time() {
        let all = [
            S::Accepted,
            S::Preparing,
            S::Ready,
            S::Starting,
            S::Running,
            S::Complete,
        ];
        assert_eq!(walk(S::Running), all);
        assert_eq!(walk(S::Complete), all);
    }

    #[test]
    fn ready_parks_after_preparing() {
        assert_eq!(walk(S::Ready), [S::Accepted, S::Preparing, S::Ready]);
        assert_eq!(
            next(S::Ready, want(S::Running), true),
            Step::Enter(S::Starting, "starting")
        );
    }

    #[test]
    fn shutdown_stops_whatever_is_not_ended() {
        for state in [S::Assigned, S::Preparing, S::Ready, S::Starting, S::Running] {
            assert_eq!(
                next(state, want(S::Shutdown), true),
                Step::Stop,
                "{state:?}"
            );
            assert_eq!(next(state, want(S::Remove), true), Step::Stop, "{state:?}");
        }
        for state in [S::Complete, S::Shutdown, S::Failed, S::Rejected] {
            assert_eq!(
                next(state, want(S::Shutdown), true),
                Step::CleanUp,
                "{state:?}"
            );
            assert_eq!(
                next(state, want(S::Shutdown), false),
                Step::Park,
                "{state:?}"
            );
        }
    }

    #[test]
    fn what_left_the_assignment_is_stopped_cleaned_up_and_removed() {
        let gone = Want {
            desired: S::Running,
            removing: true,
        };
        assert_eq!(next(S::Running, gone, true), Step::Stop);
        assert_eq!(next(S::Assigned, gone, false), Step::Stop);
        assert_eq!(next(S::Shutdown, gone, true), Step::CleanUp);
        assert_eq!(next(S::Shutdown, gone, false), Step::Remove);
        assert_eq!(next(S::Rejected, gone, false), Step::Remove);
    }

    #[test]
    fn an_error_rejects_before_starting_and_fails_after() {
        assert_eq!(after_error(S::Preparing), S::Rejected);
        assert_eq!(after_error(S::Ready), S::Rejected);
        assert_eq!(after_error(S::Starting), S::Failed);
        assert_eq!(after_error(S::Running), S::Failed);
    }
}
