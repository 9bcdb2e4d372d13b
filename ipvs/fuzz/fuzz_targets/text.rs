//! Commands of `ipvsadm`, and lines of the connection table. What can be read must be written so that
//! it reads the same.
#![no_main]

use ipvs::text::{command, parse, parse_pools, save};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for operation in parse(text).unwrap_or_default() {
        let line = command(&operation);
        assert_eq!(parse(&line).as_deref(), Ok(&[operation][..]), "{line}");
    }
    if let Ok(pools) = parse_pools(text) {
        let saved = save(&pools);
        let read = parse_pools(&saved).expect("what was saved");
        assert_eq!(ipvs::plan(&pools, &read), [], "{saved}");
    }
    ipvs::fuzzing::connection(text);
});
