"""Warnings of the pack reach the person at the screen."""


def test_a_wrong_semantic_map_is_shown_as_a_toast(page, server):
    client = page.evaluate("() => app.api.clientId")
    assert client
    server.run(
        {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 8421504}},
            "2": {"class_type": "ChampCheckMaps", "inputs": {"semantic_map": ["1", 0], "stop": False}},
        }
    )
    toast = page.get_by_text("The semantic map is grey")
    toast.wait_for(timeout=10_000)
    assert toast.is_visible()
    assert page.complaints == []
