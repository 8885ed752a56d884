from service.docs_page import docs_page

OPERATION = {
    "summary": "Predict with <b>credit</b>",
    "parameters": [{"name": "top", "in": "query", "schema": {"type": "integer"}}],
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "properties": {
                        "instances": {
                            "items": {
                                "properties": {
                                    "age": {"type": "integer"},
                                    "purpose": {
                                        "anyOf": [{"enum": ["car", "tv"]}, {"type": "null"}]
                                    },
                                },
                                "required": ["age"],
                            }
                        }
                    }
                },
                "example": {"instances": [{"age": 33, "purpose": "it's <new>"}]},
            }
        }
    },
}
PAGE = docs_page(
    {"paths": {"/livez": {"get": {"summary": "Alive"}}, "/predict": {"post": OPERATION}}},
    base_url="http://127.0.0.1:8000",
)


def test_predict_comes_first_with_parameters_columns_and_a_pasteable_line() -> None:
    assert PAGE.index("POST /predict") < PAGE.index("GET /livez")
    assert "<code>top</code></th><td>query. integer" in PAGE
    assert "<code>age</code></th><td>integer<" in PAGE
    assert "<code>purpose</code></th><td>one of car, tv, may be missing" in PAGE
    assert "curl -s &#x27;http://127.0.0.1:8000/predict?explain=true&#x27;" in PAGE


def test_nothing_of_a_model_can_become_markup_or_leave_the_shells_quotes() -> None:
    assert "<b>credit" not in PAGE
    assert "<new>" not in PAGE
    assert "it&#x27;\\&#x27;&#x27;s" in PAGE


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert "<script" not in PAGE
    assert "src=" not in PAGE
    assert "//" not in PAGE.replace("http://127.0.0.1:8000", "")
