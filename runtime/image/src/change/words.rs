//! Words of a Dockerfile: quotes, backslashes and variables.

/// Splits a text into words, without their quotes.
pub(super) fn words(text: &str, env: &[String]) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = word(rest, env, true)?;
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// `NAME=value NAME=value`, or the old form of one pair, `NAME the value`.
pub(super) fn pairs(text: &str, env: &[String]) -> Result<Vec<(String, String)>, String> {
    let first = text.split_whitespace().next().unwrap_or_default();
    let pairs = if first.contains('=') {
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("`{word}` has no value: write {word}=value")),
        };
        words(text, env)?
            .into_iter()
            .map(pair)
            .collect::<Result<Vec<_>, _>>()?
    } else {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("`{text}` has no value: write {text}=value"))?;
        let (value, _) = word(value.trim(), env, false)?;
        vec![(name.to_owned(), value)]
    };
    match pairs.iter().any(|(name, _)| name.is_empty()) {
        true => Err("a value that has no name".into()),
        false => Ok(pairs),
    }
}

/// The first word, and what is behind it; the whole text where blanks do not end a word.
fn word<'a>(text: &'a str, env: &[String], split: bool) -> Result<(String, &'a str), String> {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            (c, None) if split && c.is_whitespace() => return Ok((word, &text[at..])),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None) => word.extend(chars.next().map(|(_, c)| c)),
            ('\\', Some('"')) => match chars.next() {
                Some((_, c @ ('"' | '$' | '\\'))) => word.push(c),
                Some((_, c)) => word.extend(['\\', c]),
                None => {}
            },
            ('$', None | Some('"')) => {
                let (name, length) = variable(&text[at + 1..])?;
                word.push_str(value(name, env));
                // Variables have ASCII names.
                for _ in 0..length {
                    chars.next();
                }
            }
            (c, _) => word.push(c),
        }
    }
    match quote {
        Some(quote) => Err(format!("a quote ({quote}) that is not closed")),
        None => Ok((word, "")),
    }
}

/// The name of a variable behind a `$`, and the length of its whole form.
fn variable(text: &str) -> Result<(&str, usize), String> {
    let plain = |text: &str| {
        text.bytes()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == b'_')
            .count()
    };
    let wrong = || "only $NAME and ${NAME} are understood; a `$` itself is `\\$`".to_owned();
    let (start, end) = match text.strip_prefix('{') {
        Some(inner) => (1, 1 + plain(inner)),
        None => (0, plain(text)),
    };
    let closed = start == 0 || text[end..].starts_with('}');
    if end == start || !closed {
        return Err(wrong());
    }
    Ok((&text[start..end], end + start))
}

fn value<'a>(name: &str, env: &'a [String]) -> &'a str {
    env.iter()
        .filter_map(|variable| variable.split_once('='))
        .find(|(found, _)| *found == name)
        .map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_keep_words_together() {
        let env = ["A=1 2".to_owned()];
        for (text, expected) in [
            ("a  b", &["a", "b"][..]),
            (r#""a b" 'c d'"#, &["a b", "c d"]),
            (r"a\ b \$A", &["a b", "$A"]),
            (r#""\"\\\$\n""#, &["\"\\$\\n"]),
            (r#"'$A' "$A" ${A}x $B."#, &["$A", "1 2", "1 2x", "."]),
            ("''", &[""]),
            ("", &[]),
            ("ü'é'", &["üé"]),
        ] {
            assert_eq!(words(text, &env).expect(text), expected, "{text}");
        }
        for text in ["'a", "\"", "$", "${A", "$-", "${}"] {
            assert!(words(text, &env).is_err(), "{text}");
        }
    }
}
