// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The C header against its Rust mirror, as the C compiler sees the one and
//! rustc the other: every constant, structure and field that either has.

mod compiler;

use std::collections::BTreeMap;
use std::mem::{align_of, offset_of, size_of, size_of_val};
use std::process::Command;

use bus1_uapi::*;

const HEADER: &str = include_str!("../include/linux/bus1.h");
const MIRROR: &str = include_str!("../src/abi.rs");

/// The spelling of a type of the mirror in C.
trait InC {
    const NAME: &'static str;
}
impl InC for u32 {
    const NAME: &'static str = "__u32";
}
impl InC for u64 {
    const NAME: &'static str = "__u64";
}
impl InC for CmdSend {
    const NAME: &'static str = "struct bus1_cmd_send";
}
impl InC for Amounts {
    const NAME: &'static str = "struct bus1_amounts";
}
impl InC for Msg {
    const NAME: &'static str = "struct bus1_msg";
}
fn name_in_c<T: InC>(_: &T) -> &'static str {
    T::NAME
}

#[derive(Debug, PartialEq)]
struct Field {
    name: String,
    c_type: String,
}

/// The contents of the mirror: expressions of C and their values, and the fields.
#[derive(Default)]
struct Mirror {
    values: BTreeMap<String, u64>,
    fields: BTreeMap<String, Vec<Field>>,
}

macro_rules! constants {
    ($mirror:ident: $($name:ident)*) => {
        $($mirror.values.insert(concat!("BUS1_", stringify!($name)).into(), $name.into());)*
    };
}

macro_rules! structs {
    ($mirror:ident: $($rust:ident = $c:literal { $($field:ident = $c_field:literal,)* })*) => {
        $({
            let mut add = |what: String, value: usize| {
                $mirror.values.insert(what, value as u64);
            };
            add(format!("sizeof(struct {})", $c), size_of::<$rust>());
            add(format!("__alignof__(struct {})", $c), align_of::<$rust>());
            // No `..`: a field that this table forgets does not compile.
            let $rust { $($field,)* } = $rust::default();
            let mut fields = Vec::new();
            $(
                let of = format!("struct {}, {}", $c, $c_field);
                add(format!("__builtin_offsetof({of})"), offset_of!($rust, $field));
                add(
                    format!("sizeof(((struct {} *)0)->{})", $c, $c_field),
                    size_of_val(&$field),
                );
                fields.push(Field { name: $c_field.into(), c_type: name_in_c(&$field).into() });
            )*
            $mirror.fields.insert($c.into(), fields);
        })*
    };
}

fn mirror() -> Mirror {
    let mut mirror = Mirror::default();
    constants! { mirror:
        FD_MAX HANDLE_INVALID OFFSET_INVALID HANDLE_FLAG_MANAGED HANDLE_FLAG_REMOTE
        PEER_RESET_FLAG_FLUSH PEER_RESET_FLAG_FLUSH_SEED NODES_DESTROY_FLAG_RELEASE_HANDLES
        SEND_FLAG_CONTINUE SEND_FLAG_SEED SEND_FLAG_ROOM RECV_FLAG_SEED RECV_FLAG_INSTALL_FDS
        EXCHANGE_FLAG_SEND EXCHANGE_FLAG_INSTALL_FDS EXCHANGE_MAX DEADLINE_NOW DEADLINE_NEVER
        MSG_NONE MSG_DATA MSG_NODE_DESTROY MSG_NODE_RELEASE MSG_ROOM MSG_FLAG_CONTINUE
        IOCTL_MAGIC CMD_PEER_DISCONNECT CMD_PEER_QUERY CMD_PEER_RESET CMD_HANDLE_RELEASE
        CMD_HANDLE_TRANSFER CMD_NODES_DESTROY CMD_SLICE_RELEASE CMD_SEND CMD_RECV
        CMD_EXCHANGE CMD_QUOTA
        QUOTA_LEVEL_NONE QUOTA_LEVEL_PEER QUOTA_LEVEL_USER QUOTA_LEVEL_SENDER
        QUOTA_SLICES QUOTA_HANDLES QUOTA_BYTES QUOTA_FDS
    }
    structs! { mirror:
        CmdPeerReset = "bus1_cmd_peer_reset" {
            flags = "flags", peer_flags = "peer_flags", max_slices = "max_slices",
            max_handles = "max_handles", max_inflight_bytes = "max_inflight_bytes",
            max_inflight_fds = "max_inflight_fds",
        }
        CmdHandleTransfer = "bus1_cmd_handle_transfer" {
            flags = "flags", src_handle = "src_handle", dst_fd = "dst_fd",
            dst_handle = "dst_handle",
        }
        CmdNodesDestroy = "bus1_cmd_nodes_destroy" {
            flags = "flags", ptr_nodes = "ptr_nodes", n_nodes = "n_nodes",
        }
        CmdSend = "bus1_cmd_send" {
            flags = "flags", ptr_destinations = "ptr_destinations", ptr_errors = "ptr_errors",
            n_destinations = "n_destinations", ptr_vecs = "ptr_vecs", n_vecs = "n_vecs",
            ptr_handles = "ptr_handles", n_handles = "n_handles", ptr_fds = "ptr_fds",
            n_fds = "n_fds",
        }
        Msg = "bus1_msg" {
            kind = "type", flags = "flags", destination = "destination", offset = "offset",
            n_bytes = "n_bytes", n_handles = "n_handles", n_fds = "n_fds",
        }
        CmdRecv = "bus1_cmd_recv" {
            flags = "flags", max_offset = "max_offset", msg = "msg",
        }
        CmdExchange = "bus1_cmd_exchange" {
            size = "size", flags = "flags", ptr_slices = "ptr_slices", n_slices = "n_slices",
            n_msgs = "n_msgs", ptr_msgs = "ptr_msgs", max_offset = "max_offset",
            deadline = "deadline", send = "send",
        }
        Amounts = "bus1_amounts" {
            slices = "slices", handles = "handles", bytes = "bytes", fds = "fds",
        }
        CmdQuota = "bus1_cmd_quota" {
            size = "size", flags = "flags", handle = "handle", n_bytes = "n_bytes",
            n_handles = "n_handles", n_fds = "n_fds", level = "level", resource = "resource",
            most = "most", peer_used = "peer_used", user_used = "user_used",
            user_max = "user_max", sent_fds = "sent_fds",
        }
    }
    mirror
}

/// Returns the names that the header defines with `#define`, its guard left out.
fn header_constants() -> Vec<String> {
    HEADER
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|name| *name != "_LINUX_BUS1_H")
        .map(String::from)
        .collect()
}

/// Returns the structures that the header declares, each with its fields in order.
fn header_structs() -> BTreeMap<String, Vec<Field>> {
    let mut structs = BTreeMap::new();
    let mut open: Option<(String, Vec<Field>)> = None;
    for line in HEADER.lines() {
        if let Some((name, mut fields)) = open.take() {
            if line.starts_with('}') {
                structs.insert(name, fields);
                continue;
            }
            let (c_type, field) = line
                .trim()
                .trim_end_matches(';')
                .rsplit_once(' ')
                .unwrap_or_else(|| panic!("no field: {line}"));
            fields.push(Field {
                name: field.into(),
                c_type: c_type.into(),
            });
            open = Some((name, fields));
        } else if let Some(rest) = line.strip_prefix("struct ") {
            let name = rest.trim_end_matches(" {");
            open = Some((name.into(), Vec::new()));
        }
    }
    assert!(open.is_none(), "a structure of the header does not end");
    structs
}

/// Returns every value that the header can be asked for, as an expression of C.
fn header_expressions() -> Vec<String> {
    let mut all = header_constants();
    for (name, fields) in header_structs() {
        all.push(format!("sizeof(struct {name})"));
        all.push(format!("__alignof__(struct {name})"));
        for Field { name: field, .. } in fields {
            all.push(format!("__builtin_offsetof(struct {name}, {field})"));
            all.push(format!("sizeof(((struct {name} *)0)->{field})"));
        }
    }
    all
}

/// Returns a file of static assertions: the contents of the mirror, put to the C compiler.
fn assertions(values: &BTreeMap<String, u64>) -> String {
    let mut source = String::from("#include <linux/bus1.h>\n");
    for (what, value) in values {
        // The second half fails for an all-ones that is a signed -1.
        source += &format!(
            "_Static_assert({what} == {value}ULL && {what} >= 0, \"{what} is not {value}\");\n"
        );
    }
    source
}

#[test]
fn the_table_of_this_test_names_all_of_the_mirror() {
    let mirror = mirror();
    let mut seen = 0;
    for line in MIRROR.lines() {
        if let Some(rest) = line.strip_prefix("pub const ") {
            let name = rest.split(':').next().unwrap();
            let in_c = format!("BUS1_{name}");
            assert!(mirror.values.contains_key(&in_c), "{name} is not compared");
            seen += 1;
        }
    }
    // And one that is the first part of another.
    assert_eq!(
        MIRROR.matches("\nplain! {").count(),
        mirror.fields.len() + 1
    );
    assert_eq!(seen, 44, "constants of the interface");
    assert_eq!(mirror.fields.len(), 9, "structures of the interface");
}

#[test]
fn header_and_mirror_have_the_same_fields() {
    assert_eq!(header_structs(), mirror().fields);
}

#[test]
fn header_and_mirror_have_the_same_values() {
    let mut source =
        String::from("#include <linux/bus1.h>\n#include <stdio.h>\nint main(void) {\n");
    for what in header_expressions() {
        source += &format!("\tprintf(\"%llu %s\\n\", (unsigned long long)({what}), \"{what}\");\n");
    }
    source += "\treturn 0;\n}\n";

    let program = compiler::build("values.c", &source, &["-Wextra", "-pedantic"]);
    let output = Command::new(&program).output().expect("run values.bin");
    assert!(output.status.success(), "values.bin: {}", output.status);
    let header: BTreeMap<String, u64> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(value, what)| (what.to_owned(), value.parse().unwrap()))
        .collect();

    assert_eq!(header, mirror().values);
}

#[test]
fn the_header_stands_alone_in_old_and_new_dialects() {
    let source = "#include <linux/bus1.h>\n#include <linux/bus1.h>\n";
    for dialect in ["-std=gnu89", "-std=c99", "-std=c11"] {
        compiler::check("alone.c", source, &[dialect, "-Wextra"])
            .unwrap_or_else(|error| panic!("{dialect}:\n{error}"));
    }
}

#[test]
fn layout_is_the_same_for_32_bit_callers() {
    let flags = match compiler::flags_32bit() {
        Some(flags) => flags,
        // Every x86 compiler can; elsewhere there may be no 32-bit callers.
        None if cfg!(target_arch = "x86_64") => {
            panic!("the C compiler refuses -m32 -ffreestanding -fsyntax-only; install gcc")
        }
        None => return println!("the compiler makes no 32-bit code here: nothing to compare"),
    };
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let values = mirror().values;
    compiler::check("layout32.c", &assertions(&values), &flags)
        .unwrap_or_else(|error| panic!("the layout differs for 32-bit callers:\n{error}"));
}

#[test]
fn an_assertion_that_is_wrong_is_noticed() {
    let values = mirror().values;
    compiler::check("right.c", &assertions(&values), &[]).expect("the true values");
    for what in ["BUS1_CMD_RECV", "sizeof(struct bus1_msg)"] {
        let mut values = values.clone();
        *values.get_mut(what).unwrap() += 1;
        let error = compiler::check("wrong.c", &assertions(&values), &[])
            .expect_err("the compiler accepted a wrong value");
        assert!(error.contains(&format!("{what} is not")), "{error}");
    }
}

#[test]
fn the_head_of_an_exchange_is_where_it_starts() {
    let whole = bus1_uapi::CmdExchange::from_bytes(&core::array::from_fn(|i| i as u8));
    let bytes = whole.to_bytes();
    let head = bus1_uapi::CmdExchangeHead::from_bytes(bytes.first_chunk().unwrap());
    assert_eq!(
        head.to_bytes()[..],
        bytes[..core::mem::offset_of!(bus1_uapi::CmdExchange, send)]
    );
    let fields = [
        head.size,
        head.flags,
        head.ptr_slices,
        head.n_slices,
        head.n_msgs,
    ];
    assert_eq!(
        fields,
        [
            whole.size,
            whole.flags,
            whole.ptr_slices,
            whole.n_slices,
            whole.n_msgs
        ]
    );
    let fields = [head.ptr_msgs, head.max_offset, head.deadline];
    assert_eq!(fields, [whole.ptr_msgs, whole.max_offset, whole.deadline]);
}
