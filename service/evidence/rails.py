"""Rails: triggers that keep a mistake, or a careless hand, from changing what is evidence.

They bind whoever forgets, not whoever means it: a trigger can be dropped. What was changed all the
same is found by `explaind verify`.
"""

import re

from sqlalchemy import Connection, text

from service.evidence.tables import INSERTED_COLUMNS, metadata

APPEND_ONLY = ("log_entries", "tree_nodes", "erasures", "accesses")
_ERASABLE = ("payload", "record_key")
_FIXED = tuple(name for name in INSERTED_COLUMNS if name not in _ERASABLE)


def lay_rails(connection: Connection) -> None:
    """Create the triggers that are not there."""
    missing = missing_rails(connection)
    if missing and connection.dialect.name == "postgresql":
        connection.execute(text(_FUNCTIONS))
    for name in sorted(missing):
        connection.execute(text(_wanted(connection)[name]))


def rails_of(connection: Connection) -> dict[str, str]:
    """The triggers that are there, each with its table."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'"
    else:
        query = (
            "SELECT tgname, CAST(CAST(tgrelid AS regclass) AS TEXT)"
            " FROM pg_trigger WHERE NOT tgisinternal"
        )
    return {row[0]: row[1] for row in connection.execute(text(query))}


def missing_rails(connection: Connection) -> set[str]:
    """The triggers somebody has dropped."""
    return set(_wanted(connection)) - set(rails_of(connection))


def rail_problems(connection: Connection) -> list[str]:
    """What is wrong with triggers of our tables: dropped, switched off, changed, or added."""
    wanted, found = _wanted(connection), rails_of(connection)
    texts = _texts(connection)
    ours = set(metadata.tables)
    return [
        *(f"the trigger {name} was dropped" for name in sorted(set(wanted) - set(found))),
        *(
            f"the trigger {name} is not as it was made"
            for name in sorted(set(wanted) & set(found))
            if _plain(texts[name]) != _plain(wanted[name])
        ),
        *(
            f"the trigger {name} on {table} is not one of ours"
            for name, table in sorted(found.items())
            if name not in wanted and table.rpartition(".")[2].strip('"') in ours
        ),
        *_function_problems(connection),
    ]


def _texts(connection: Connection) -> dict[str, str]:
    """What the triggers say; one of PostgreSQL that does not fire says so."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    else:
        query = (
            "SELECT tgname, pg_get_triggerdef(oid) || CASE tgenabled WHEN 'O' THEN ''"
            " ELSE ' switched off' END FROM pg_trigger WHERE NOT tgisinternal"
        )
    return {row[0]: row[1] for row in connection.execute(text(query))}


def _function_problems(connection: Connection) -> list[str]:
    if connection.dialect.name == "sqlite":
        return []
    query = "SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'explaind\\_%'"
    found = [tuple(row) for row in connection.execute(text(query))]
    bodies = re.findall(r"FUNCTION (\w+)\(\).*?\$\$(.*?)\$\$", _FUNCTIONS, re.DOTALL)
    return [
        f"the function {name} is not as it was made"
        for name, body in bodies
        if (name, body) not in found or len([one for one, _ in found if one == name]) > 1
    ]


def _plain(statement: str) -> str:
    """Without what a database adds or leaves out when it shows a trigger."""
    shown = statement.replace("IF NOT EXISTS ", "", 1).casefold()
    return re.sub(r"\bpublic\.|[\s()]", "", shown)


def _wanted(connection: Connection) -> dict[str, str]:
    return _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL


_SUBJECTS = "events_subjects_rail"


def _sqlite_statements() -> dict[str, str]:
    refuse = "BEGIN SELECT RAISE(ABORT, 'evidence is not changed'); END"
    statements = {
        _SUBJECTS: "CREATE TRIGGER IF NOT EXISTS events_subjects_rail AFTER INSERT ON events"
        " WHEN NEW.subjects IS NOT NULL BEGIN INSERT OR IGNORE INTO event_subjects"
        " SELECT NEW.tenant, value, NEW.event_id FROM json_each(NEW.subjects)"
        " WHERE value IS NOT NULL; END",
        "events_change_rail": "CREATE TRIGGER IF NOT EXISTS events_change_rail BEFORE UPDATE OF"
        f" {', '.join(_FIXED)} ON events {refuse}",
        "events_erase_rail": "CREATE TRIGGER IF NOT EXISTS events_erase_rail"
        " BEFORE UPDATE OF payload ON events"
        f" WHEN length(NEW.payload) >= length(OLD.payload) OR OLD.payload IS NULL {refuse}",
    }
    for table in ("events", *APPEND_ONLY):
        name = f"{table}_delete_rail"
        statements[name] = f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE DELETE ON {table} {refuse}"
    for table in APPEND_ONLY:
        name = f"{table}_change_rail"
        statements[name] = f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE UPDATE ON {table} {refuse}"
    return statements


_FUNCTIONS = """
CREATE OR REPLACE FUNCTION explaind_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'evidence is not changed';
END $$;
CREATE OR REPLACE FUNCTION explaind_subjects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO event_subjects
  SELECT NEW.tenant, value, NEW.event_id
  FROM jsonb_array_elements_text(CAST(NEW.subjects AS JSONB)) WHERE value IS NOT NULL
  ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
"""


def _postgresql_statements() -> dict[str, str]:
    refuse = "FOR EACH ROW EXECUTE FUNCTION explaind_refuse()"
    statements = {
        _SUBJECTS: f"CREATE TRIGGER {_SUBJECTS} AFTER INSERT ON events FOR EACH ROW"
        " WHEN (NEW.subjects IS NOT NULL) EXECUTE FUNCTION explaind_subjects()",
        "events_change_rail": "CREATE TRIGGER events_change_rail BEFORE UPDATE OF"
        f" {', '.join(_FIXED)} ON events {refuse}",
        "events_erase_rail": "CREATE TRIGGER events_erase_rail BEFORE UPDATE OF payload ON events"
        " FOR EACH ROW WHEN (length(NEW.payload) >= length(OLD.payload) OR OLD.payload IS NULL)"
        " EXECUTE FUNCTION explaind_refuse()",
    }
    for table in ("events", *APPEND_ONLY):
        name = f"{table}_delete_rail"
        statements[name] = f"CREATE TRIGGER {name} BEFORE DELETE ON {table} {refuse}"
    for table in APPEND_ONLY:
        name = f"{table}_change_rail"
        statements[name] = f"CREATE TRIGGER {name} BEFORE UPDATE ON {table} {refuse}"
    return statements


_SQLITE = _sqlite_statements()
_POSTGRESQL = _postgresql_statements()
