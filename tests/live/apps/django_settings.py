ROOT_URLCONF = "django_shop"
DEBUG = False
ALLOWED_HOSTS = ["*"]
SECRET_KEY = "only-for-tests"  # noqa: S105 - nothing is signed with it
MIDDLEWARE: list[str] = []
