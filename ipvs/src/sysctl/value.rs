//! What settings can be.

mod sealed {
    pub trait Sealed {}
}

/// A type of settings.
pub trait Value: Sized + sealed::Sealed {
    /// Reads what the kernel's file holds, without the end of the line.
    fn read(text: &str) -> Option<Self>;

    /// What the kernel's file takes.
    fn text(&self) -> String;
}

macro_rules! value {
    ($type:ty, $read:expr, $text:expr) => {
        impl sealed::Sealed for $type {}
        impl Value for $type {
            fn read(text: &str) -> Option<Self> {
                let read: fn(&str) -> Option<Self> = $read;
                read(text)
            }

            fn text(&self) -> String {
                let text: fn(&Self) -> String = $text;
                text(self)
            }
        }
    };
}

value!(i32, |text| text.parse().ok(), i32::to_string);
value!(u64, |text| text.parse().ok(), u64::to_string);
// The kernel means "on" by every number but 0.
value!(
    bool,
    |text| text.parse().ok().map(|number: i32| number != 0),
    |on| i32::from(*on).to_string()
);

/// When a defence against running out of memory is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Defense {
    /// Never: 0.
    Off,
    /// When memory is short, which it is not now: 1.
    Automatic,
    /// When memory is short, which it is now: 2. The kernel changes between this and
    /// [`Defense::Automatic`] by itself.
    AutomaticNow,
    /// Always: 3.
    Always,
}

value!(
    Defense,
    |text| match text {
        "0" => Some(Self::Off),
        "1" => Some(Self::Automatic),
        "2" => Some(Self::AutomaticNow),
        "3" => Some(Self::Always),
        _ => None,
    },
    |defense| match defense {
        Self::Off => "0",
        Self::Automatic => "1",
        Self::AutomaticNow => "2",
        Self::Always => "3",
    }
    .to_owned()
);

/// When a new connection from the address and port of an older one is scheduled anew, instead of
/// going to the older one's destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReuseMode {
    /// Never: 0.
    Never,
    /// When the older one is seen to have ended, which is only with masquerading: 1, the default.
    Ended,
    /// Also when the older one is seen to be ending, which is all that can be seen with routes and
    /// tunnels: 3.
    Ending,
}

value!(
    ReuseMode,
    // The kernel looks at the second bit, and else only whether it is 0.
    |text| match text.parse::<i32>().ok()? {
        0 => Some(Self::Never),
        bits if bits & 2 != 0 => Some(Self::Ending),
        _ => Some(Self::Ended),
    },
    |mode| match mode {
        Self::Never => "0",
        Self::Ended => "1",
        Self::Ending => "3",
    }
    .to_owned()
);

/// After how many packets a connection is synchronised: at first after `first`, then whenever the
/// number of its packets divided by `period` leaves `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SyncThreshold {
    /// Packets before the first time.
    pub first: i32,
    /// Packets between two times; 0 leaves it to the state and
    /// [`SYNC_REFRESH_PERIOD`](super::SYNC_REFRESH_PERIOD). Else more than `first`.
    pub period: i32,
}

value!(
    SyncThreshold,
    |text| {
        let (first, period) = text.split_once(char::is_whitespace)?;
        Some(Self {
            first: first.parse().ok()?,
            period: period.trim_start().parse().ok()?,
        })
    },
    |threshold| format!("{} {}", threshold.first, threshold.period)
);

/// Processors, as numbers and ranges of them separated by commas: `0-3,6`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CpuList(pub String);

value!(CpuList, |text| Some(Self(text.to_owned())), |list| list
    .0
    .clone());

#[cfg(test)]
mod tests {
    use super::*;

    fn same<T: Value + PartialEq + std::fmt::Debug>(text: &str, value: T) {
        assert_eq!(T::read(text), Some(value));
        assert_eq!(
            T::read(text).map(|value| value.text()).as_deref(),
            Some(text)
        );
    }

    #[test]
    fn values_are_what_the_kernel_writes() {
        same("-4", -4);
        same("18446744073709551615", u64::MAX);
        same("0", false);
        same("1", true);
        assert_eq!(bool::read("2"), Some(true));
        same("0", Defense::Off);
        same("2", Defense::AutomaticNow);
        same("0", ReuseMode::Never);
        same("1", ReuseMode::Ended);
        same("3", ReuseMode::Ending);
        assert_eq!(ReuseMode::read("2"), Some(ReuseMode::Ending));
        assert_eq!(ReuseMode::read("4"), Some(ReuseMode::Ended));
        same(
            "3 50",
            SyncThreshold {
                first: 3,
                period: 50,
            },
        );
        assert_eq!(
            SyncThreshold::read("3\t50"),
            Some(SyncThreshold {
                first: 3,
                period: 50
            })
        );
        same("0-3,6", CpuList("0-3,6".to_owned()));
    }

    #[test]
    fn anything_else_is_no_value() {
        assert_eq!(i32::read("2147483648"), None);
        assert_eq!(u64::read("-1"), None);
        assert_eq!(bool::read("yes"), None);
        assert_eq!(Defense::read("4"), None);
        assert_eq!(ReuseMode::read(""), None);
        assert_eq!(SyncThreshold::read("3"), None);
        assert_eq!(SyncThreshold::read("3 x"), None);
    }
}
