"""The native API's sessions and lists."""

from tests.support.stage import Stage

SESSIONS = "/api/v1/chat/sessions"


async def test_a_session_has_the_fields_of_the_contract_and_the_seeds_defaults(on_stage: Stage):
    async with on_stage.http.post(SESSIONS, json={"title": "New Chat"}) as answer:
        session = await answer.json()

    assert list(session) == [
        "id",
        "user_id",
        "title",
        "mode",
        "status",
        "model",
        "temperature",
        "max_tokens",
        "system_prompt",
        "context_tags",
        "on_busy",
        "message_count",
        "created_at",
        "updated_at",
        "last_message_at",
    ]
    assert (session["title"], session["mode"], session["status"]) == (
        "New Chat",
        "general",
        "active",
    )
    assert (session["temperature"], session["max_tokens"]) == (0.7, 1024)
    assert session["created_at"].endswith("Z")


async def test_a_session_is_read_changed_and_erased(on_stage: Stage):
    session_id = await on_stage.session()
    url = f"{SESSIONS}/{session_id}/"

    async with on_stage.http.patch(url, json={"title": "Two", "temperature": 0}) as changed:
        assert (await changed.json())["temperature"] == 0
    async with on_stage.http.get(url) as read:
        assert (await read.json())["title"] == "Two"
    async with on_stage.http.delete(url) as erased:
        assert erased.status == 204
    async with on_stage.http.get(url) as gone:
        assert gone.status == 404


async def test_a_list_goes_on_from_its_cursor_to_the_end(on_stage: Stage):
    made = [await on_stage.session() for _ in range(5)]

    found, cursor = list[str](), ""
    while cursor is not None:
        query = f"?limit=2&cursor={cursor}" if cursor else "?limit=2"
        async with on_stage.http.get(SESSIONS + query) as answer:
            page = await answer.json()
        assert page["total"] == 5
        found += [session["id"] for session in page["items"]]
        cursor = page["next_cursor"]

    assert found == made[::-1]


async def test_a_list_has_numbered_pages_too(on_stage: Stage):
    made = [await on_stage.session() for _ in range(3)]

    async with on_stage.http.get(f"{SESSIONS}/?page=2&page_size=2") as answer:
        page = await answer.json()

    assert [session["id"] for session in page["items"]] == made[:1]
    assert page["next_cursor"] is None


async def test_answers_are_not_to_be_kept_and_name_their_request(on_stage: Stage):
    async with on_stage.http.get(SESSIONS) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Request-Id"]


async def test_the_root_says_what_this_is(on_stage: Stage):
    async with on_stage.http.get("/") as answer:
        assert (await answer.json())["name"] == "natterlog"
