//! One line of options.

use super::options::{Command, Key, Spec, Value};
use super::problem::Problem;

/// A line, taken apart.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) command: Command,
    /// As it was written.
    pub(super) command_text: String,
    /// The value of the command itself.
    pub(super) command_value: Option<&'a str>,
    options: Vec<(&'static Spec, Option<&'a str>)>,
    /// What is no option.
    pub(super) rest: Vec<&'a str>,
}

impl<'a> Line<'a> {
    /// Takes a line apart; `None` if it says nothing. A first word `ipvsadm` is passed over, so that a
    /// script's lines can be read, and so is everything from a word that begins with `#`.
    pub(super) fn read(text: &'a str) -> Result<Option<Self>, Problem> {
        let mut words = text
            .split_ascii_whitespace()
            .take_while(|word| !word.starts_with('#'))
            .peekable();
        words.next_if_eq(&"ipvsadm");
        let mut command: Option<(Command, &'static Spec, Option<&'a str>)> = None;
        let mut options: Vec<(&'static Spec, Option<&'a str>)> = Vec::new();
        let mut rest = Vec::new();
        while let Some(word) = words.next() {
            for (spec, attached) in split(word, &mut rest)? {
                let value = match (spec.value, attached) {
                    (Value::None, Some(_)) => {
                        return Err(Problem::Unexpected {
                            word: word.to_owned(),
                        });
                    }
                    (Value::None, None) => None,
                    (_, Some(value)) => Some(value),
                    (Value::Required, None) => Some(
                        words
                            .next()
                            .ok_or(Problem::NoValue { option: name(spec) })?,
                    ),
                    (Value::Optional, None) => words.next_if(|next| !next.starts_with('-')),
                };
                match spec.key {
                    Key::Command(it) if command.is_none() && options.is_empty() => {
                        command = Some((it, spec, value));
                    }
                    Key::Command(_) => return Err(Problem::SecondCommand { option: name(spec) }),
                    key if options.iter().any(|(other, _)| other.key == key) => {
                        return Err(Problem::Repeated { option: name(spec) });
                    }
                    _ => options.push((spec, value)),
                }
            }
        }
        let Some((command, spec, command_value)) = command else {
            return match (options.first(), rest.first()) {
                (None, None) => Ok(None),
                _ => Err(Problem::NoCommand),
            };
        };
        let command_text = name(spec);
        if let Some((stranger, _)) = options.iter().find(|(spec, _)| !spec.fits(command)) {
            return Err(Problem::NotAllowed {
                option: name(stranger),
                command: command_text,
            });
        }
        Ok(Some(Self {
            command,
            command_text,
            command_value,
            options,
            rest,
        }))
    }

    /// Whether an option is there.
    pub(super) fn has(&self, key: Key) -> bool {
        self.options.iter().any(|(spec, _)| spec.key == key)
    }

    /// The first of these options that is there, and its value.
    pub(super) fn first_of(&self, keys: &[Key]) -> Option<(&'static Spec, Option<&'a str>)> {
        self.options
            .iter()
            .find(|(spec, _)| keys.contains(&spec.key))
            .copied()
    }

    /// The value of an option, read by `read`, which says what it would have taken.
    pub(super) fn value<T>(
        &self,
        key: Key,
        read: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, Problem> {
        let Some((spec, Some(value))) = self.first_of(&[key]) else {
            return Ok(None);
        };
        match read(value) {
            Ok(value) => Ok(Some(value)),
            Err(expected) => Err(Problem::BadValue {
                option: name(spec),
                value: value.to_owned(),
                expected,
            }),
        }
    }

    /// Refuses two options of a kind of which there can be one.
    pub(super) fn at_most_one(&self, keys: &[Key]) -> Result<(), Problem> {
        let mut given = self
            .options
            .iter()
            .filter(|(spec, _)| keys.contains(&spec.key));
        match (given.next(), given.next()) {
            (Some((first, _)), Some((second, _))) => Err(Problem::Conflict {
                option: name(second),
                with: name(first),
            }),
            _ => Ok(()),
        }
    }
}

/// An option as people write it.
pub(super) fn name(spec: &Spec) -> String {
    match spec.short {
        Some(letter) => format!("-{letter}"),
        None => format!("--{}", spec.long),
    }
}

/// The options in one word, the last of which may have its value with it. A word that is no option
/// goes to `rest`.
fn split<'a>(
    word: &'a str,
    rest: &mut Vec<&'a str>,
) -> Result<Vec<(&'static Spec, Option<&'a str>)>, Problem> {
    let unknown = || Problem::UnknownOption {
        word: word.to_owned(),
    };
    if let Some(long) = word.strip_prefix("--") {
        let (long, value) = match long.split_once('=') {
            Some((long, value)) => (long, Some(value)),
            None => (long, None),
        };
        return Ok(vec![(Spec::by_long(long).ok_or_else(unknown)?, value)]);
    }
    let Some(letters) = word.strip_prefix('-') else {
        rest.push(word);
        return Ok(Vec::new());
    };
    if letters.is_empty() {
        return Err(unknown());
    }
    let mut options = Vec::new();
    for (position, letter) in letters.char_indices() {
        let spec = Spec::by_short(letter).ok_or_else(unknown)?;
        let after = &letters[position + letter.len_utf8()..];
        if spec.value != Value::None && !after.is_empty() {
            let value = after.strip_prefix('=').unwrap_or(after);
            options.push((spec, Some(value)));
            break;
        }
        options.push((spec, None));
    }
    Ok(options)
}
