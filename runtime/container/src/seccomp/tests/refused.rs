//! Profiles that are refused, by the field that is wrong.

use super::profile;
use crate::seccomp::{check, compile, known, parse};

fn refused(json: &str, words: &[&str]) {
    let error = parse(json.as_bytes()).and_then(|profile| compile(&profile));
    let shown = &json[..json.len().min(300)];
    let error = error.expect_err(shown).to_string();
    for word in words {
        assert!(
            error.contains(word),
            "{shown}: \"{error}\" lacks \"{word}\""
        );
    }
}

#[test]
fn text_that_is_no_profile() {
    for (json, words) in [
        ("{", &["linux.seccomp", "EOF"][..]),
        ("[]", &["linux.seccomp"]),
        ("{}", &["linux.seccomp", "defaultAction"]),
        (
            r#"{"defaultAction":"SCMP_ACT_NONSENSE"}"#,
            &["linux.seccomp.defaultAction", "SCMP_ACT_NONSENSE"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86","VAX"]}"#,
            &["linux.seccomp.architectures[1]", "VAX"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}"#,
            &["linux.seccomp.flags[0]", "NEW_LISTENER"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":-1}"#,
            &["linux.seccomp.defaultErrnoRet", "-1"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"NO"}]}"#,
            &["linux.seccomp.syscalls[0].action", "NO"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG",
                "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":1,"op":"LIKE"}]}]}"#,
            &["linux.seccomp.syscalls[0].args[1].op", "LIKE"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG",
                "args":[{"index":-1,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
            &["linux.seccomp.syscalls[0].args[0].index", "-1"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG",
                "args":[{"index":0,"value":-5,"op":"SCMP_CMP_EQ"}]}]}"#,
            &["linux.seccomp.syscalls[0].args[0].value", "-5"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[]}"#,
            &["linux.seccomp.archMap", "Docker's own form"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}}]}"#,
            &["linux.seccomp.syscalls[0].includes", "Docker's own form"],
        ),
    ] {
        refused(json, words);
    }
}

#[test]
fn values_that_make_no_sense() {
    let with = |rest: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{rest}}}"#);
    let entry = |rest: &str| with(&format!(r#""syscalls":[{{{rest}}}]"#));
    for (json, words) in [
        (
            with(r#""defaultErrnoRet":1"#),
            &[
                "linux.seccomp.defaultErrnoRet",
                "SCMP_ACT_ALLOW",
                "takes no number",
            ][..],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4095}"#.into(),
            &["linux.seccomp.defaultErrnoRet", "4094"],
        ),
        (
            entry(r#""names":["a"],"action":"SCMP_ACT_TRACE","errnoRet":65536"#),
            &["linux.seccomp.syscalls[0].errnoRet", "65535"],
        ),
        (
            entry(r#""names":["a"],"action":"SCMP_ACT_KILL","errnoRet":1"#),
            &["linux.seccomp.syscalls[0].errnoRet", "SCMP_ACT_KILL"],
        ),
        (
            entry(r#""names":[],"action":"SCMP_ACT_KILL""#),
            &["linux.seccomp.syscalls[0].names"],
        ),
        (
            entry(r#""names":["read",""],"action":"SCMP_ACT_KILL""#),
            &["linux.seccomp.syscalls[0].names[1]", "empty"],
        ),
        (
            entry(
                r#""names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]"#,
            ),
            &["linux.seccomp.syscalls[0].args[0].index", "6"],
        ),
        (
            entry(
                r#""names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":1,"valueTwo":2,"op":"SCMP_CMP_EQ"}]"#,
            ),
            &["linux.seccomp.syscalls[0].args[0].valueTwo", "MASKED_EQ"],
        ),
        (
            with(r#""architectures":["SCMP_ARCH_X86","SCMP_ARCH_S390X"]"#),
            &["linux.seccomp.architectures[1]", "SCMP_ARCH_S390X"],
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}"#.into(),
            &["linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY"],
        ),
        (
            with(
                r#""listenerPath":"/x","syscalls":[{"names":["read","write"],"action":"SCMP_ACT_NOTIFY"}]"#,
            ),
            &["linux.seccomp.syscalls[0].names[1]", "write"],
        ),
        (
            entry(r#""names":["mkdir"],"action":"SCMP_ACT_NOTIFY""#),
            &["linux.seccomp.listenerPath", "missing"],
        ),
        (
            with(r#""listenerMetadata":"m""#),
            &["linux.seccomp.listenerMetadata"],
        ),
        (
            with(&format!(
                r#""listenerPath":"/x","listenerMetadata":"{}""#,
                "m".repeat((1 << 20) + 1)
            )),
            &["linux.seccomp.listenerMetadata", "longer"],
        ),
        (
            with(&format!(
                r#""listenerPath":"/{}","syscalls":[{{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}}]"#,
                "x".repeat(107)
            )),
            &["linux.seccomp.listenerPath", "107"],
        ),
    ] {
        refused(&json, words);
    }
}

#[test]
fn contradictions() {
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                {{"names":["read","mkdir"],"action":{first}}},
                {{"names":["mkdir"],"action":{second}}}]}}"#
        )
    };
    let arg = r#","args":[{"index":1,"value":7,"op":"SCMP_CMP_EQ"}]"#;
    let place = ["linux.seccomp.syscalls[1].names[0]", "syscalls[0].names[1]"];
    for (first, second) in [
        (
            r#""SCMP_ACT_ALLOW""#.to_string(),
            format!(r#""SCMP_ACT_KILL"{arg}"#),
        ),
        (
            format!(r#""SCMP_ACT_KILL"{arg}"#),
            r#""SCMP_ACT_ALLOW""#.into(),
        ),
        (
            format!(r#""SCMP_ACT_KILL"{arg}"#),
            format!(r#""SCMP_ACT_ALLOW"{arg}"#),
        ),
        // The default's own action, too: the library would drop the first.
        (r#""SCMP_ACT_ERRNO""#.into(), r#""SCMP_ACT_ALLOW""#.into()),
    ] {
        refused(&two(&first, &second), &place);
    }
    // Saying the same twice is none.
    let same = two(r#""SCMP_ACT_ALLOW""#, &format!(r#""SCMP_ACT_ALLOW"{arg}"#));
    compile(&profile(&same)).expect("compiled");
}

#[test]
fn huge_lists() {
    let list = |entries: Vec<String>| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#,
            entries.join(",")
        )
    };
    // The same rule a hundred thousand times is one rule.
    let same = r#"{"names":["read"],"action":"SCMP_ACT_ALLOW"}"#.to_string();
    let filter = compile(&profile(&list(vec![same; 100_000]))).expect("compiled");
    assert!(filter.to_bytes().len() < 1000);
    // So many different ones no program holds.
    let different = |count: u32| {
        let entry = |value| {
            format!(
                r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                    "args":[{{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
            )
        };
        list((0..count).map(entry).collect())
    };
    refused(
        &different(100_000),
        &["linux.seccomp.syscalls[4096].names[0]", "4096"],
    );
    refused(
        &different(4090),
        &["linux.seccomp.syscalls", "instructions"],
    );
}

#[test]
fn what_is_known() {
    let known = known();
    let actions = known.actions().as_ref().expect("actions");
    assert_eq!(actions.len(), 9);
    assert_eq!(known.operators().as_ref().expect("operators").len(), 7);
    let archs = known.archs().as_ref().expect("archs");
    // Whatever is said to be known is taken, and what is not is refused.
    for arch in crate::seccomp::arch::ALL {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["{arch}"],
                "syscalls":[{{"names":["mkdir"],"action":"SCMP_ACT_KILL"}}]}}"#
        );
        let result = compile(&profile(&text));
        assert_eq!(result.is_ok(), archs.contains(&arch), "{arch}: {result:?}");
    }
    for flag in known.supported_flags().as_ref().expect("flags") {
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","flags":["{flag}"]}}"#);
        check(&profile(&text)).expect(flag);
    }
}
