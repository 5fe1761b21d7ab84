//! The checked-in code for `schema/pair.capnp` is what the schema generates now.

#[test]
fn the_generated_code_is_current() {
    let root = env!("CARGO_MANIFEST_DIR");
    let out = std::env::temp_dir().join(format!("ft-pair-schema-{}", std::process::id()));
    std::fs::create_dir_all(&out).unwrap();
    capnpc::CompilerCommand::new()
        .src_prefix(format!("{root}/schema"))
        .file(format!("{root}/schema/pair.capnp"))
        .output_path(&out)
        .run()
        .expect("the capnp tool is installed (`make deps`) and takes the schema");
    let made = std::fs::read_to_string(out.join("pair_capnp.rs")).unwrap();
    std::fs::remove_dir_all(&out).unwrap();
    let kept = std::fs::read_to_string(format!("{root}/src/schema/pair_capnp.rs")).unwrap();
    assert!(
        made == kept,
        "src/schema/pair_capnp.rs is out of date: generate it again with \
         `capnp compile -orust:src/schema --src-prefix=schema schema/pair.capnp` in shared/"
    );
}
