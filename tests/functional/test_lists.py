"""Lists of tags and of repositories. dist-spec 1.1.1, "Listing tags"; the catalog."""

import pytest

from holdfast import (Client, make_image, MANIFEST, next_page, push_blob, push_image, push_manifest,
                      random_bytes, random_name, tags)

TAGS = ["0.9", "1.0", "1.10", "1.2", "V2", "_x", "a", "b", "latest", "v1", "z" * 128]


@pytest.fixture(scope="module")
def tagged(server):
    """A repository with TAGS, pushed in another order."""
    name = random_name("lists/tags")
    image = make_image()
    with Client(server) as client:
        push_image(client, name, image)
        for tag in reversed(TAGS):
            push_manifest(client, name, image, tag)
    return name


def test_all_tags_are_listed_in_byte_order(client, tagged):
    answer = client.get(f"/v2/{tagged}/tags/list")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"name": tagged, "tags": TAGS}
    assert answer.headers["Link"] is None


@pytest.mark.parametrize("n", [1, 2, 5, 10, 11])
def test_pages_of_n_give_each_tag_once(client, tagged, n):
    found, path = [], f"/v2/{tagged}/tags/list?n={n}"
    while path:
        assert path.startswith("/v2/"), "Link must be a path: clients refuse another host"
        answer = client.get(path)
        page = answer.json()["tags"]
        assert len(page) <= n
        found += page
        path = next_page(answer)
        assert len(page) == n or path is None
    assert found == TAGS


def test_a_page_that_holds_all_has_no_link(client, tagged):
    for n in (len(TAGS), 1000, 10**9):
        answer = client.get(f"/v2/{tagged}/tags/list?n={n}")
        assert answer.json()["tags"] == TAGS
        assert answer.headers["Link"] is None


def test_n_0_is_an_empty_list_without_link(client, tagged):
    answer = client.get(f"/v2/{tagged}/tags/list?n=0")
    assert (answer.status, answer.json()["tags"]) == (200, [])
    assert answer.headers["Link"] is None


@pytest.mark.parametrize("last, first", [("", 0), ("0", 0), ("1.10", 3), ("1.11", 3),
                                         ("between", 8), ("z" * 128, 11), ("zzzz", 10)])
def test_last_is_where_the_list_goes_on_and_need_not_exist(client, tagged, last, first):
    assert [t for t in TAGS if t > last] == TAGS[first:], "the table is wrong"
    answer = client.get(f"/v2/{tagged}/tags/list?last={last}")
    assert answer.json()["tags"] == TAGS[first:]


def test_n_and_last_go_together(client, tagged):
    answer = client.get(f"/v2/{tagged}/tags/list?n=2&last=1.10")
    assert answer.json()["tags"] == ["1.2", "V2"]
    assert "last=V2" in answer.headers["Link"]


@pytest.mark.parametrize("n", ["-1", "x", "", "1.5", "1e3", "0x10", "%20",
                               "99999999999999999999999"])
@pytest.mark.parametrize("path", ["/v2/{}/tags/list", "/v2/_catalog"])
def test_an_n_that_is_no_number_is_400_pagination_number_invalid(client, tagged, path, n):
    answer = client.get(path.format(tagged) + f"?n={n}")
    if n == "99999999999999999999999":  # a number, though larger than any page
        assert answer.status in (200, 400)
    else:
        assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")


def test_a_repository_without_tags_has_an_empty_list(client, repo):
    push_blob(client, repo, random_bytes())
    answer = client.get(f"/v2/{repo}/tags/list")
    assert (answer.status, answer.json()) == (200, {"name": repo, "tags": []})


def test_the_tags_of_an_unknown_repository_are_404_name_unknown(client, repo):
    answer = client.get(f"/v2/{repo}/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


def test_a_tag_appears_at_once_and_once(client, repo):
    for image in (make_image(), make_image()):
        push_image(client, repo, image, "v1")
        assert tags(client, repo) == ["v1"]


def test_a_thousand_tags_come_in_one_answer(client, repo):
    # The conformance suite does not follow Link when it sends no n.
    image = make_image()
    push_image(client, repo, image)
    wanted = [f"t{i:04}" for i in range(1000)]
    for start in range(0, 1000, 20):
        query = "&".join(f"tag={t}" for t in wanted[start:start + 20])
        assert client.put(f"/v2/{repo}/manifests/{image.digest}?{query}", image.body,
                          {"Content-Type": MANIFEST}).status == 201
    assert client.get(f"/v2/{repo}/tags/list").json()["tags"] == wanted


def test_head_of_a_list_has_its_length_and_no_body(client, tagged):
    path = f"/v2/{tagged}/tags/list"
    answer = client.head(path)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == client.get(path).headers["Content-Length"]


# ---- The catalog ----

@pytest.fixture(scope="module")
def catalog(server, tagged):
    names = sorted(f"cat/{name}" for name in ("a", "a-b", "a/b", "a.b", "b", "c", "zz"))
    with Client(server) as client:
        for name in reversed(names):
            push_image(client, name, make_image(), "v1")
    return names


def all_repositories(client, path="/v2/_catalog"):
    found = []
    while path:
        answer = client.get(path)
        assert answer.status == 200
        found += answer.json()["repositories"]
        path = next_page(answer)
    return found


def test_the_catalog_lists_repositories_in_byte_order(client, catalog):
    found = all_repositories(client)
    assert found == sorted(found)
    assert set(catalog) <= set(found)


@pytest.mark.parametrize("n", [1, 3])
def test_pages_of_the_catalog_give_each_repository_once(client, catalog, n):
    assert all_repositories(client, f"/v2/_catalog?n={n}") == all_repositories(client)


def test_the_catalog_goes_on_after_last(client, catalog):
    answer = client.get(f"/v2/_catalog?n=3&last={catalog[1]}")
    assert answer.json() == {"repositories": catalog[2:5]}
    answer = client.get(f"/v2/_catalog?n=1&last={catalog[1].replace('/', '%2F')}")
    assert answer.json() == {"repositories": catalog[2:3]}


def test_the_catalog_of_an_empty_registry_is_empty(make_server):
    with Client(make_server()) as client:
        answer = client.get("/v2/_catalog")
        assert (answer.status, answer.json()) == (200, {"repositories": []})
