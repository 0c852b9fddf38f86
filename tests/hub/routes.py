"""The hub's routes, as huggingface_hub calls them. It offers no Xet: plain HTTP and LFS."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub.answers import Answering, FailedError, HungUpError
from tests.hub.faults import Faults, Heard
from tests.hub.repositories import (
    LARGE,
    LARGE_BYTES,
    Blob,
    Commit,
    Page,
    Repositories,
    Repository,
    children,
)

NAME = r"(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"


class Routes(Answering):
    """Handles the requests of one connection."""

    repositories: Repositories
    faults: Faults
    requests: list[Heard]
    tokens: dict[str, str]
    urls: dict[str, str]
    host: str
    page: list[int]
    pages: dict[str, Page]

    def do_GET(self) -> None:  # noqa: N802  # http.server's name
        """One request; HEAD, POST and PUT as well."""
        address = urlsplit(self.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.heard = Heard(self.host, self.command, address.path, self.headers.get("Range"), token)
        self.requests.append(self.heard)
        self.fault = self.faults.take(self.heard)
        self.query = parse_qs(address.query)
        self.forget_body()
        try:
            self._route(address.path)
        except FailedError as error:
            self.body()
            self.fail(error)
        except HungUpError:
            self.hang_up()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _route(self, path: str) -> None:
        if self.fault.status is not None:
            self.body()
            self.answer(self.fault.status, self.fault.headers, b'{"error": "as the test wants it"}')
            return
        if self.fault.location is not None:
            self.body()
            place = self.fault.location.format(path=path, **self.urls)
            self.answer(307, {"Location": place})
            return
        path = path.removeprefix("/moved")
        routes: tuple[tuple[str, str, Callable[..., None]], ...] = (
            ("GET|HEAD", rf"/{NAME}/resolve/{REVISION}/(?P<file>.+)", self._resolve),
            ("GET|HEAD", r"/cdn/(?P<sha256>[0-9a-f]{64})", self._cdn),
            ("GET|HEAD", r"/web/(?P<name>.+)", self._web),
            ("PUT", r"/cdn/upload/(?P<sha256>[0-9a-f]{64})", self._upload),
            ("GET", r"/api/whoami-v2", self._whoami),
            ("POST", r"/api/repos/create", self._create),
            ("GET", rf"/api/models/{NAME}(/revision/{REVISION})?", self._info),
            ("GET", rf"/api/models/{NAME}/tree/{REVISION}(/(?P<folder>.+))?", self._tree),
            ("POST", rf"/api/models/{NAME}/paths-info/{REVISION}", self._paths_info),
            ("POST", rf"/api/models/{NAME}/preupload/{REVISION}", self._preupload),
            ("POST", rf"/api/models/{NAME}/commit/{REVISION}", self._commit),
            ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", self._lfs_batch),
            ("POST", rf"/{NAME}\.git/info/lfs/verify", self._lfs_verify),
        )
        for methods, pattern, route in routes:
            found = re.fullmatch(pattern, path)
            if found and self.command in methods.split("|"):
                route(**{key: unquote(value) for key, value in found.groupdict(default="").items()})
                return
        raise FailedError(404, None, f"Sorry, we can't find the page you are looking for: {self.heard}")

    # files

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._readable(name)
        commit = self._commit_at(repository, revision)
        blob = commit.files.get(file)
        sent = {"X-Repo-Commit": commit.oid}
        if blob is None:
            error = FailedError(404, "EntryNotFound", "Entry not found")
            error.headers |= sent
            raise error
        sent["ETag"] = f'"{self.fault.digest or blob.etag}"'
        if not blob.large:
            self.send_file(blob.path, sent)
            return
        sent["X-Linked-ETag"] = sent["ETag"]
        sent["X-Linked-Size"] = str(blob.size if self.fault.size is None else self.fault.size)
        place = f"{self.urls['cdn']}/cdn/{blob.sha256}?signature=test"
        self.answer(302, sent | {"Location": place, "Accept-Ranges": "bytes"})

    def _cdn(self, sha256: str) -> None:
        self.send_file(self.repositories.large_blob(sha256).path, {"ETag": f'"{sha256}"'})

    def _web(self, name: str) -> None:
        """A file as any web server has one."""
        page = self.pages.get(name)
        if page is None:
            raise FailedError(404, None, "not found")
        if page.user is not None:
            pair = base64.b64encode(page.user.encode()).decode()
            if self.headers.get("Authorization") != f"Basic {pair}":
                raise FailedError(401, None, "who are you?")
        if self.command == "HEAD" and page.get_only:
            raise FailedError(405, None, "GET only")
        self.send_file(page.path, page.headers)

    # what there is

    def _whoami(self) -> None:
        if self.heard.token not in self.tokens:
            raise FailedError(401, None, "Invalid credentials in Authorization header")
        role = self.tokens[self.heard.token]
        self.answer_json({"type": "user", "name": "tester", "auth": {"accessToken": {"role": role}}})

    def _info(self, name: str, revision: str) -> None:
        repository = self._visible(name)
        commit = self._commit_at(repository, revision or "main")
        self.answer_json(
            {
                "id": name,
                "modelId": name,
                "sha": commit.oid,
                "lastModified": _time(commit),
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "tags": [],
                "downloads": 0,
                "siblings": [{"rfilename": file} for file in sorted(commit.files)],
            }
        )

    def _tree(self, name: str, revision: str, folder: str) -> None:
        repository = self._visible(name)
        commit = self._commit_at(repository, revision)
        recursive = self.query.get("recursive", [""])[0].lower() == "true"
        found = list(children(commit, folder, recursive=recursive))
        if folder and not found:
            raise FailedError(404, "EntryNotFound", f"{folder} does not exist on {revision!r}")
        begin = int(self.query.get("cursor", ["0"])[0])
        end = begin + self.page[0]
        headers = {}
        if end < len(found):
            more = self.path.partition("?")[0] + f"?recursive={recursive}&cursor={end}"
            headers["Link"] = f'<{self.urls["hub"]}{more}>; rel="next"'
        self.answer_json([self._entry(commit, *entry) for entry in found[begin:end]], headers)

    def _paths_info(self, name: str, revision: str) -> None:
        repository = self._visible(name)
        commit = self._commit_at(repository, revision)
        entries = dict(children(commit, "", recursive=True))
        asked = parse_qs(self.body().decode()).get("paths", [])
        self.answer_json([self._entry(commit, path, entries[path]) for path in asked if path in entries])

    def _entry(self, commit: Commit, path: str, blob: Blob | None) -> dict[str, Any]:
        expand = self.query.get("expand", [""])[0].lower() == "true"
        last = {"id": commit.oid, "title": commit.title, "date": _time(commit)}
        more = {"lastCommit": last} if expand else {}
        if blob is None:
            oid = hashlib.sha1(f"{commit.oid} {path}".encode()).hexdigest()
            return {"type": "directory", "oid": oid, "size": 0, "path": path} | more
        digest = self.fault.digest or blob.sha256
        size = blob.size if self.fault.size is None else self.fault.size
        large = {"lfs": {"oid": digest, "size": size, "pointerSize": 134}} if blob.large else {}
        return {"type": "file", "oid": blob.oid, "size": size, "path": path} | large | more

    # writing

    def _create(self) -> None:
        self._may_write()
        asked = json.loads(self.body())
        name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        url = f"{self.urls['hub']}/{name}"
        if self.repositories.find(name) is not None:
            words = {"error": "You already created this model repo", "url": url}
            self.answer(409, {}, json.dumps(words).encode())
            return
        self.repositories.create(name, private=asked.get("visibility") == "private")
        self.answer_json({"url": url, "name": name})

    def _preupload(self, name: str, revision: str) -> None:
        commit = self._commit_at(self._writable(name), revision)
        files = []
        for asked in json.loads(self.body())["files"]:
            base64.b64decode(asked["sample"], validate=True)
            large = asked["path"].endswith(LARGE) or asked["size"] > LARGE_BYTES
            here = commit.files.get(asked["path"])
            files.append(
                {
                    "path": asked["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": None if here is None else here.sha256 if here.large else here.oid,
                }
            )
        self.answer_json({"files": files, "commitOid": commit.oid})

    def _lfs_batch(self, name: str) -> None:
        self._writable(name)
        asked = json.loads(self.body())
        if (asked["operation"], asked["hash_algo"]) != ("upload", "sha256"):
            raise FailedError(422, None, "only basic uploads by sha256")
        objects: list[dict[str, Any]] = []
        for wanted in asked["objects"]:
            known = {"oid": wanted["oid"], "size": wanted["size"]}
            if self.repositories.has(wanted["oid"]):
                objects.append(known)
                continue
            upload = {"href": f"{self.urls['cdn']}/cdn/upload/{wanted['oid']}?signature=test"}
            verify = {"href": f"{self.urls['hub']}/{quote(name)}.git/info/lfs/verify"}
            objects.append(known | {"authenticated": True, "actions": {"upload": upload, "verify": verify}})
        self.answer_json({"transfer": "basic", "objects": objects})

    def _upload(self, sha256: str) -> None:
        part, digest = self.repositories.partial(), hashlib.sha256()
        with part.open("wb") as file:
            while block := self.body_block():
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != sha256:
            part.unlink()
            raise FailedError(400, None, "the content is not what the name says")
        self.repositories.keep(part, sha256)
        self.answer(200, {"ETag": f'"{sha256}"'})

    def _lfs_verify(self, name: str) -> None:
        self._writable(name)
        asked = json.loads(self.body())
        if not self.repositories.has(asked["oid"]):
            raise FailedError(404, None, "the upload did not arrive")
        self.answer_json({"message": "Successfully verified"})

    def _commit(self, name: str, revision: str) -> None:
        repository = self._writable(name)
        lines = [json.loads(line) for line in self.body().splitlines() if line]
        header = lines[0]["value"]
        changes: dict[str, Blob | None] = {}
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    changes[value["path"]] = self.repositories.small_blob(base64.b64decode(value["content"]))
                case "lfsFile":
                    if not self.repositories.has(value["oid"]):
                        raise FailedError(400, None, f"large file {value['path']} was not uploaded")
                    changes[value["path"]] = self.repositories.large_blob(value["oid"])
                case "deletedFile":
                    changes[value["path"]] = None
                case "deletedFolder":
                    inner = children(
                        self._commit_at(repository, revision), value["path"].rstrip("/"), recursive=True
                    )
                    changes |= {path: None for path, blob in inner if blob is not None}
                case key:
                    raise FailedError(400, None, f"unknown operation {key}")
        with self.repositories.lock():
            if revision not in repository.branches:
                raise FailedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            if header.get("parentCommit") not in (None, repository.branches[revision].oid):
                raise FailedError(412, None, "A commit has happened since. Please refresh and try again.")
            made = self.repositories.change(repository, revision, changes, header["summary"])
        url = f"{self.urls['hub']}/{name}/commit/{made.oid}"
        self.answer_json({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    # who may

    def _visible(self, name: str) -> Repository:
        token = self.heard.token
        if token is not None and token not in self.tokens:
            raise FailedError(401, None, "Invalid credentials in Authorization header")
        repository = self.repositories.find(name)
        if repository is None or (repository.private and token is None):
            # the hub does not tell a stranger which of the two it is
            raise FailedError(404 if token else 401, "RepoNotFound", "Repository not found")
        return repository

    def _readable(self, name: str) -> Repository:
        repository = self._visible(name)
        if repository.gated and self.heard.token not in repository.granted:
            words = f"Access to model {name} is restricted and you are not in the authorized list."
            raise FailedError(403 if self.heard.token else 401, "GatedRepo", words)
        return repository

    def _writable(self, name: str) -> Repository:
        repository = self._visible(name)
        self._may_write()
        return repository

    def _may_write(self) -> None:
        if self.heard.token is None:
            raise FailedError(401, None, "Invalid username or password.")
        if self.tokens.get(self.heard.token) != "write":
            raise FailedError(403, None, "you must use a write token to upload to a repository")

    def _commit_at(self, repository: Repository, revision: str) -> Commit:
        commit = repository.commit_at(revision)
        if commit is None:
            raise FailedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit


def _time(commit: Commit) -> str:
    return commit.at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
